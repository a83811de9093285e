"""`fallow bundle calibrate`: how well a text bundle's tolerance tells honest answers from others, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ..node.config import default_home
from ..protocol.errors import Code, ConfigError
from ..verifier.compare import refutes
from .environment import AsJson, usable
from .output import Json, needing, print_json, progress, remark, table

if TYPE_CHECKING:
    from ..models.power import Report

PROMPTS_MAX = 1_000


def calibrate(
    name: str,
    /,
    *,
    prompts: Annotated[int, Parameter(help="How many are answered, honestly and by each adversary.")] = 24,
    tokens: Annotated[int, Parameter(help="Of each answer, at most.")] = 64,
    plot: Annotated[Path | None, Parameter(help="Draw the distributions into this SVG file.")] = None,
    publish: Annotated[
        bool,
        Parameter(
            help="Install the bundle anew, signed by this machine, with a tolerance from these figures and their error"
            " rates. Refused if that does not separate.",
        ),
    ] = False,
    json: AsJson = False,
) -> int:
    """Honest windows, and those of every adversary, are judged by the bundle's tolerance; exit code 1 if it does not separate.

    Honest answers are decoded, alone and side by side, then scored in windows, by other programs than those that wrote them.
    The adversaries: other weights sold as these (bfloat16, int8, int4, fine-tuned), a smaller model, the text of the int4
    model scored by the full one, a truncated context, another seed, temperature or top-p, the output of another prompt, a
    few tokens flipped, an early stop.
    """
    with needing("models"):
        from ..models.calibrating import calibrated, republished
    if not (2 <= prompts <= PROMPTS_MAX and 2 <= tokens <= 4096):
        raise ConfigError(Code.BAD_CONFIG, f"--prompts is from 2 to {PROMPTS_MAX}, --tokens from 2 to 4096.")
    with progress("calibrating") as show:
        report = calibrated(default_home(), name, prompts, tokens, refutes=refutes, anew=publish, on_progress=show)
    if plot is not None:
        with usable("--plot", plot):
            plot.write_text(_drawn(name, report), "utf-8")
    problems, cid = report.problems(), None
    if publish and not problems:
        cid = republished(default_home(), report)
    if json:
        print_json(_as_json(report, problems, cid))
    else:
        _show(report, problems)
        if cid:
            remark(f"{name} with this tolerance is {cid}, signed and trusted by this machine")
    if publish and problems:
        raise ConfigError(Code.BAD_CONFIG, f"Not published: {'; '.join(problems)}. The bundle is as it was.")
    return 1 if problems else 0


def _drawn(name: str, report: Report) -> str:
    from ..models.plot import Panel, histograms

    seen, limits = report.seen, report.tolerance
    rows = {kind: f"{kind}: {sum(s.refuted)} of {len(s.refuted)} windows refuted" for kind, s in seen.items()}
    stated = "a stated log-probability is off by so many micro-nats"
    taken = "sampling would have taken another token by so much"
    return histograms(
        name,
        rows,
        [
            Panel(stated, {kind: s.value_micro for kind, s in seen.items()}, limits.value_micro),
            Panel(taken, {kind: s.gap_micro for kind, s in seen.items()}, limits.gap_micro),
        ],
    )


def _show(report: Report, problems: list[str]) -> None:
    table(
        ("who", "windows", "differ by at most", "a window is refuted", "an answer is refuted"),
        [
            (
                kind,
                str(len(seen.refuted)),
                f"{max(seen.value_micro)} micro-nats, gap {max(seen.gap_micro)}",
                f"{seen.window_power:.1%}",
                f"{seen.answer_power:.1%} of {len(seen.answers)}",
            )
            for kind, seen in report.seen.items()
            if seen.refuted
        ],
    )
    limits = report.tolerance
    remark(f"tolerance: {limits.value_micro} micro-nats, gap {limits.gap_micro}, mass {limits.mass_ppm} ppm")
    remark(f"an honest window is refuted at most {report.false_reject_upper:.2%} of the time (95 % confidence)")
    remark(f"resumed in the middle, {report.resumed_otherwise} texts went on otherwise; measured on {report.device}")
    for problem in problems:
        remark(f"does not separate: {problem}")


def _as_json(report: Report, problems: list[str], cid: str | None) -> Json:
    limits = report.tolerance
    return {
        "separates": not problems,
        "problems": problems,
        "cid": cid,
        "tolerance": {"value_micro": limits.value_micro, "gap_micro": limits.gap_micro, "mass_ppm": limits.mass_ppm},
        "false_reject_at_most": report.false_reject_upper,
        "resumed_otherwise": report.resumed_otherwise,
        "device": report.device,
        "kinds": {
            kind: {
                "windows": len(seen.refuted), "answers": len(seen.answers),
                "window_power": seen.window_power, "answer_power": seen.answer_power,
                "value_micro_max": max(seen.value_micro, default=0), "gap_micro_max": max(seen.gap_micro, default=0),
            }
            for kind, seen in report.seen.items()
        },
    }  # fmt: skip
