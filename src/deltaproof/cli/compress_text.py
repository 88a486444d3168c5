"""Compressed updates in words: sizes with their denominators, scores with their rows."""

from typing import Any

from deltaproof.compression.folder import Report, with_ratios
from deltaproof.compression.sweep import Point, Sweep
from deltaproof.experiments.wording import score as shown
from deltaproof.experiments.wording import size
from deltaproof.metrics import METRICS

_BAR = 30


def report_text(report: Report) -> str:
    """What was written, how small it is, and what it costs."""
    lines = [
        f"{report.path}: density {report.density:g}, alpha {_alpha(report.alpha)}, scope {report.scope}, "
        f"counted from {report.start}",
        *_size_lines(with_ratios(report.sizes)),
        f"relative error of the compressed tensors: {report.relative_error:.3f}",
    ]
    if report.score_before is not None and report.score_after is not None and report.metric is not None:
        unit = METRICS[report.metric].unit
        lines.append(
            f"{report.metric} on validation: {shown(report.score_before, unit)} before, "
            f"{shown(report.score_after, unit)} after"
        )
    else:
        lines.append("no score: the validation rows of its run are not at hand, or were not asked for")
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])


def inspection_text(found: dict[str, Any], with_tensors: bool) -> str:
    """A file's facts, and its tensors where they are asked for."""
    base, settings = found["base"] or {}, found["settings"] or {}
    lines = [
        f"{found['path']}: format {found['format']}, every checksum holds",
        f"holds: {found['method']}" + (f" (seed {found['seed']})" if found["seed"] is not None else "")
        + (f", tuned on {found['data']}" if found["data"] else ""),
        f"base: {base.get('name') or 'not named'}, fingerprint {base.get('fingerprint') or 'not known'}",
        f"density {settings.get('density')}, alpha {_alpha(settings.get('alpha'))}, scope {settings.get('scope')}, "
        f"counted from {found['start']}",
        *_size_lines(found["sizes"]),
    ]  # fmt: skip
    if with_tensors:
        lines += ["", *(_tensor_line(tensor) for tensor in found["tensors"])]
    else:
        lines.append(f"{len(found['tensors'])} tensors; --tensors lists them")
    return "\n".join(lines)


def sweep_text(found: Sweep) -> str:
    """A curve for each density: the best ternary setting of it, all of them, and pruning alone."""
    unit = METRICS[found.metric].unit
    lines = [
        f"{found.metric} on validation, scope {found.scope}, counted from {found.start}",
        f"as tuned {shown(found.before, unit)}, with nothing of the update but what is kept whole "
        f"{shown(found.without, unit)}",
    ]
    scores = [point.score for point in found.points if point.score is not None] + [found.before]
    low, high = min(scores), max(scores)
    for density in dict.fromkeys(point.density for point in found.points):
        best = found.best(density)
        small = next((p for p in found.points if p.density == density and p.file_bytes is not None), None)
        head = f"density {density:g}"
        if small is not None:
            head += (
                f": file {size(small.file_bytes)}, {small.stored_ratio:.1f} x smaller than all tensors as stored; "
                f"compressed "
                f"tensors {small.fp16_ratio:.1f} x smaller than in fp16, {small.fp32_ratio:.1f} x than in fp32"
            )
        lines += ["", head]
        for point in (point for point in found.points if point.density == density):
            lines.append(_point_line(point, point is best, unit, low, high))
    lines += ["", "alpha is chosen on the rows that the scores are of: the best of many is a little too good"]
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])


def _point_line(point: Point, is_best: bool, unit: str, low: float, high: float) -> str:
    if point.score is None:
        return f"  alpha {point.alpha!s:>6}  refused"
    name = "pruned only " if point.alpha == "pruned" else f"alpha {_alpha(point.alpha):>6}"
    bar = "█" * round(_BAR * (point.score - low) / (high - low)) if high > low else ""
    error = "" if point.relative_error is None else f"  error {point.relative_error:.3f}"
    return f"  {name}  {shown(point.score, unit):>6}  {bar:<{_BAR}}{error}{'  best' if is_best else ''}".rstrip()


def _size_lines(sizes: dict[str, Any]) -> list[str]:
    fp16, fp32 = 2 * sizes["n_ternary"], 4 * sizes["n_ternary"]
    entropy = 8 * sizes["entropy_bytes"] / max(sizes["n_ternary"], 1)
    return [
        f"file {size(sizes['file_bytes'])} ({sizes['file_bytes']:,} bytes by stat), {sizes['stored_ratio']:.1f} x "
        f"smaller than "
        f"all its tensors as stored ({size(sizes['stored_bytes'])})",
        f"compressed: {sizes['n_ternary']:,} values, {sizes['n_kept']:,} kept, in {size(sizes['code_bytes'])}: "
        f"{sizes['fp16_ratio']:.1f} x smaller than in fp16 ({size(fp16)}), {sizes['fp32_ratio']:.1f} x than in fp32 "
        f"({size(fp32)})",
        f"{sizes['bits_per_value']:.3f} bits a compressed value; {entropy:.3f} is the least if positions were chance",
        f"kept whole: {sizes['n_whole']:,} values, in {size(sizes['whole_bytes'])}",
    ]


def _tensor_line(tensor: dict[str, Any]) -> str:
    shape = "×".join(map(str, tensor["shape"])) or "scalar"
    more = {
        "ternary": f"{tensor.get('kept')} kept, scale {tensor.get('scale', 0):.3g}, from {tensor.get('start')}",
        "rows": f"{tensor.get('rows')} rows differ from the base",
        "whole": "",
    }[tensor["kind"]]
    kind, n_bytes = f"{tensor['dtype']:5} {tensor['kind']:8}", size(tensor["bytes"])
    return f"{tensor['name']:60} {shape:>12} {kind} {n_bytes:>8}  {more}".rstrip()


def _alpha(alpha: object) -> str:
    return f"{alpha:g}" if isinstance(alpha, float | int) else str(alpha)
