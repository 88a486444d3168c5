"""Which precision the hardware is good at, and the accelerator to train on."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from deltaproof.errors import ConfigError
from deltaproof.memory import is_one_of_several


def pick_device(name: str = "auto") -> torch.device:
    """The device by name; `auto` takes CUDA, then Apple's MPS, then the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the device must exist on this machine, got `{name}` ({reason}); try `cpu`") from None
    return device


def check_devices(n_devices: int, device: torch.device, precision: str) -> None:
    """Refuse to spread one training over devices that are not there; a CPU holds any number of processes.

    Raises:
        ConfigError: there are fewer, or sharding does not work with this device or precision.
    """
    if n_devices == 1:
        return
    if precision == "fp16":
        raise ConfigError('`devices_per_run` needs fp32 or bf16, got fp16; set `precision = "fp32"`')
    if device.type == "cpu":
        return
    if device.type != "cuda" or device.index is not None:
        raise ConfigError(f'`devices_per_run` takes the first devices of `cuda`, got `{device}`; set `device = "cuda"`')
    if n_devices > torch.cuda.device_count():
        raise ConfigError(
            f"`devices_per_run` may be as many devices as there are, got {n_devices} with {torch.cuda.device_count()} "
            f"here; lower it"
        )


def pick_precision(wanted: str, device: torch.device) -> str:
    """`fp32`, `bf16` or `fp16`: what `wanted` comes to on this device. `auto` asks the hardware and never guesses."""
    if wanted == "fp16" and device.type == "cpu":
        raise ConfigError('fp16 needs an accelerator, got the CPU; use `precision = "bf16"` or `fp32`')
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") or has.get("amx_tile") else "fp32"
    return "fp32"


def accelerator_for(device: torch.device, precision: str) -> Accelerator:
    """A fresh Accelerator; accelerate keeps one per process, which may have been made for another precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    if is_one_of_several():
        from deltaproof.training.sharding import sharding_accelerator

        return sharding_accelerator(device, precision)
    return Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=device.type == "cpu")
