"""PaddleX's device strings: parsed, and checked against what this machine has."""

from __future__ import annotations

from dataclasses import dataclass

from recognition.engine import child
from recognition.errors import BadInput, DeviceUnavailable

# paddlex/utils/device.py: SUPPORTED_DEVICE_TYPE
KINDS = ("cpu", "gpu", "xpu", "npu", "mlu", "gcu", "dcu", "iluvatar_gpu", "metax_gpu")


@dataclass(frozen=True, slots=True)
class Device:
    """A kind of device and the ids asked for; no ids means the first one (never for cpu)."""

    kind: str
    ids: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}:{','.join(map(str, self.ids))}" if self.ids else self.kind

    @property
    def first_id(self) -> int | None:
        """The id a process works on: None for cpu, else the first one asked for, or 0."""
        if self.kind == "cpu":
            return None
        return self.ids[0] if self.ids else 0

    def each(self) -> list[Device]:
        """One device per id: what each worker process gets."""
        return [Device(self.kind, (number,)) for number in self.ids] or [self]


def parse_device(text: str) -> Device:
    """The device that `text` names, in PaddleX's grammar: `kind[:id{,id}]`, e.g. `gpu:0,1`.

    The kind may be written in any case; ids are decimal; cpu has none; an id given twice counts
    once. PaddleX answers some mistakes with an empty AssertionError and runs an empty text on
    whatever there is; here all of them raise BadInput.
    """
    kind, colon, numbers = text.strip().partition(":")
    kind = kind.lower()
    if kind not in KINDS:
        hint = " (NVIDIA devices are called gpu)" if kind in ("cuda", "nvidia") else ""
        raise BadInput(
            f"{text!r} is not a device: use one of {', '.join(KINDS)}, with ids where wanted, "
            f"such as gpu:0 or gpu:0,1{hint}.",
            field="device",
        )
    if not colon:
        return Device(kind)
    if kind == "cpu":
        raise BadInput(f"{text!r}: cpu takes no ids; write just cpu.", field="device")
    parts = numbers.split(",")
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise BadInput(
            f"{text!r}: after the colon come device ids, whole numbers with commas between them, "
            f"such as {kind}:0 or {kind}:0,1.",
            field="device",
        )
    return Device(kind, tuple(dict.fromkeys(int(part) for part in parts)))


def probe(device: Device) -> None:
    """Raise DeviceUnavailable, naming what was found, unless every id of `device` is there.

    Looks in a child process, because asking Paddle for a device it was not built for can abort
    the process. cpu is always there and is answered at once; the others take seconds.
    """
    if device.kind == "cpu":
        return
    try:
        found = child.run("found_devices", [])["devices"]
    except child.ChildFailed as error:
        raise DeviceUnavailable(
            f"Device {device} was asked for, but looking for devices failed: {error}. "
            "Check the driver, or use cpu."
        ) from error
    wanted = [f"{device.kind}:{number}" for number in device.ids or (0,)]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DeviceUnavailable(
            f"Device {device} was asked for, but this machine's Paddle does not offer "
            f"{', '.join(missing)}; found: {', '.join(found)}. Install the Paddle build for that "
            "device and its driver, or choose one of those found."
        )
