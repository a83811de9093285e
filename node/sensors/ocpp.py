"""OCPP 2.0.1's messages, as far as a site's compute has to know them: what chargers draw, and what the station is limited to.

    [2, "id", "SetChargingProfile", {"evseId": 0, "chargingProfile": {...}}]     a call
    [3, "id", {"status": "Accepted"}]                                            its answer
    [4, "id", "NotSupported", "...", {}]                                         or an error

A `SetChargingProfile` with the purpose `ChargingStationExternalConstraints` is the grid's limit for the whole station
(OCPP 2.0.1 part 2, K), in watts; `MeterValues` and `TransactionEvent` carry `Power.Active.Import` of each outlet.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from ..rules.signals import Signal, Value
from .feed import SensorError

CALL, RESULT, ERROR = 2, 3, 4
SUBPROTOCOL: Final = "ocpp2.0.1"
OUTLETS_MAX: Final = 256
PROFILES_MAX: Final = 64
MULTIPLIER_MAX: Final = 9
PERIODS_MAX: Final = 1024
"""The standard's own bound for one schedule."""
_EXTERNAL: Final = "ChargingStationExternalConstraints"


@dataclass(frozen=True, slots=True)
class Limit:
    """A profile's limits in watts, each from so many seconds after its start on."""

    start_s: float | None
    """Since 1970; None: from when it came."""
    periods: tuple[tuple[float, float], ...]
    lasts_s: float
    level: int

    def watts(self, now_s: float, came_s: float) -> float | None:
        """None: it limits nothing now."""
        passed = now_s - (came_s if self.start_s is None else self.start_s)
        if not 0 <= passed < self.lasts_s:
            return None
        return next((watts for start, watts in reversed(self.periods) if start <= passed), None)


@dataclass(slots=True)
class Station:
    """What is known of a charging station by what has passed between it and its management system."""

    limits: dict[int, tuple[Limit, float]] = field(default_factory=dict)
    """By the profile's number, with the time at which each came."""
    outlets: dict[int, float] = field(default_factory=dict)
    """Watts of each."""

    def answer_untrusted(self, message: str | bytes, now_s: float) -> str | None:
        """What is to be answered; None if nothing. What the message says counts. Raises `SensorError` for what is no OCPP."""
        try:
            match json.loads(message):
                case [2, str(number), str(action), dict(payload)]:
                    pass
                case [3, *_] | [4, *_]:
                    return None
                case _:
                    raise SensorError("it sends what is no OCPP")
        except (ValueError, RecursionError):
            raise SensorError("it sends what is no JSON") from None
        try:
            payload_back = self._take(action, payload, now_s)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError):
            return json.dumps(
                [ERROR, number[:36], "FormationViolation", f"{action[:50]} is not as OCPP 2.0.1 has it", {}]
            )
        if payload_back is None:
            return json.dumps([ERROR, number[:36], "NotSupported", "only charging limits and meters are read here", {}])
        return json.dumps([RESULT, number[:36], payload_back])

    def signals(self, now_s: float) -> dict[Signal, Value]:
        """The limit that holds now, if one does, and what all outlets draw, once one has told."""
        found: dict[Signal, Value] = {}
        if self.outlets:
            found[Signal.CHARGERS_W] = sum(self.outlets.values())
        standing = [
            (limit.level, w) for limit, came in self.limits.values() if (w := limit.watts(now_s, came)) is not None
        ]
        if standing:  # of a higher stack level wins; of one level the stricter
            level = max(level for level, _ in standing)
            found[Signal.GRID_LIMIT_W] = min(watts for each, watts in standing if each == level)
        return found

    def _take(self, action: str, payload: Mapping[str, Any], now_s: float) -> dict[str, Any] | None:
        """The answer's payload; None to what is not read here. Raises what a payload of another form makes Python raise."""
        match action:
            case "SetChargingProfile":
                profile = payload["chargingProfile"]
                if profile["chargingProfilePurpose"] == _EXTERNAL:
                    if len(self.limits) >= PROFILES_MAX and profile["id"] not in self.limits:
                        return {"status": "Rejected"}
                    self.limits[int(profile["id"])] = _limit(profile), now_s
                return {"status": "Accepted"}
            case "ClearChargingProfile":
                number = payload.get("chargingProfileId")
                known = number is None or number in self.limits
                self.limits = {} if number is None else {each: v for each, v in self.limits.items() if each != number}
                return {"status": "Accepted" if known else "Unknown"}
            case "MeterValues":
                self._meter(int(payload["evseId"]), payload["meterValue"])
                return {}
            case "TransactionEvent":
                outlet = int(payload.get("evse", {"id": 1})["id"])
                if payload["eventType"] == "Ended":
                    self.outlets[outlet] = 0.0
                else:
                    self._meter(outlet, payload.get("meterValue", []))
                return {}
            case "BootNotification":
                return {"currentTime": _iso(now_s), "interval": 60, "status": "Accepted"}
            case "Heartbeat":
                return {"currentTime": _iso(now_s)}
            case "StatusNotification":
                return {}
        return None

    def _meter(self, outlet: int, values: list[Mapping[str, Any]]) -> None:
        for each in values:
            for sample in each["sampledValue"]:
                if sample.get("measurand") == "Power.Active.Import" and sample.get("phase") is None:
                    unit = sample.get("unitOfMeasure", {})
                    multiplier = int(unit.get("multiplier", 0))
                    if abs(multiplier) > MULTIPLIER_MAX:
                        raise ValueError
                    scale = 10.0**multiplier * (1000 if unit.get("unit", "W") == "kW" else 1)
                    watts = float(sample["value"]) * scale
                    if not math.isfinite(watts) or (outlet not in self.outlets and len(self.outlets) >= OUTLETS_MAX):
                        raise ValueError
                    self.outlets[outlet] = max(0.0, watts)


def _limit(profile: Mapping[str, Any]) -> Limit:
    """Raises for a schedule that is none, or is not in watts."""
    schedule = profile["chargingSchedule"][0]
    periods = schedule["chargingSchedulePeriod"]
    if schedule["chargingRateUnit"] != "W" or not 0 < len(periods) <= PERIODS_MAX:
        raise ValueError
    found = tuple((float(period["startPeriod"]), float(period["limit"])) for period in periods)
    if not all(math.isfinite(each) for pair in found for each in pair):
        raise ValueError
    start = schedule.get("startSchedule")
    start_s = datetime.fromisoformat(start).timestamp() if start else None
    return Limit(start_s, tuple(sorted(found)), float(schedule.get("duration", math.inf)), int(profile["stackLevel"]))


def _iso(now_s: float) -> str:
    from datetime import UTC

    return datetime.fromtimestamp(now_s, UTC).isoformat().replace("+00:00", "Z")
