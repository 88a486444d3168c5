"""What the text of an option says: lists of numbers, names of labels."""

from json import loads

from deltaproof.errors import ConfigError


def whole_numbers(text: str, option: str) -> list[int]:
    """Whole numbers separated by commas."""
    try:
        found = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise ConfigError(f"`{option}` takes whole numbers of at least 1, got `{text}`; write for example 1,2,4,8")
    return found


def shares(text: str | None, option: str) -> tuple[float, ...] | None:
    """Numbers separated by commas; None where the option was left out."""
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if not found:
        raise ConfigError(f"`{option}` takes numbers separated by commas, got `{text}`; write for example 0.1,0.3")
    return found


def label_names(text: str | None) -> dict[str, str]:
    """`0=negative,1=positive`, or a JSON object."""
    if text is None:
        return {}
    try:
        found = loads(text)
    except ValueError:
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        found = {key.strip(): name.strip() for key, sign, name in pairs if sign}
        found = found if len(found) == len(pairs) else None
    if not isinstance(found, dict):
        raise ConfigError(f"`--label-names` reads `0=negative,1=positive`, or a JSON object, got `{text}`; write it so")
    return {str(key): str(value) for key, value in found.items()}
