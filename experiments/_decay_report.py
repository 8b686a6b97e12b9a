"""The words of `gradient_decay`: its tables, its warnings, and verdicts computed from numbers."""

import math

import numpy as np

from experiments import _common as common


def print_exact(facts: list[dict]) -> None:
    """Table 1."""
    common.print_table(
        "Table 1. What is exact",
        ("claim", "exact", "measured", ""),
        [(f["claim"], f["exact"], f["measured"], "✓" if f["holds"] else "✗") for f in facts],
    )


def print_about(about: dict) -> None:
    """What the numbers are about: a line or two before the long part."""
    say = common.console().print
    if "text" not in about:
        say(f"{about['network']}; inputs: {about['inputs']}")
        return
    say(
        f"Text: {about['text']}, {about['characters']:,} characters, the last "
        f"{about['held_out']:,} held out; {about['alphabet']:,} different ones have a number of "
        f"their own, which covers {100 * about['coverage']:.2f} %."
    )
    say(
        f"Held-out text costs {about['unigram_bits']:.2f} bits/char by frequency (unigram), "
        f"{about['trigram_bits']:.2f} by a Witten-Bell trigram."
    )


def print_result(rows: list[dict], warnings: list[str], verdicts: list[str]) -> None:
    """Table 2 and the sentences below it."""
    columns = (
        "cell", "when", "bits/char", "rate ± sd", "half-life", "horizon", "input rate", "ln σ(J)"
    )  # fmt: skip
    table: list[tuple[str, ...]] = []
    for row in rows:
        for m in ends(row):
            label = row["label"] if m is row["measurements"][0] else ""
            when = "before" if m is row["measurements"][0] else "after"
            table.append((label, when, *_cells(m)))
        table.append(())
    first, last = ends(rows[0])[0]["when"], ends(rows[0])[-1]["when"]
    common.print_table(f"Table 2. Before ({first}) and after ({last})", columns, table)
    say = common.console().print
    say(
        "rate: change of ln ‖∂carry_T/∂carry_(T−lag)‖ per step, over lags T/10…T, mean ± sd over "
        "seeds; half-life and horizon (first lag below the threshold) in steps, medians; input "
        "rate: the same for ‖∂L_T/∂x_(T−lag)‖; ln σ(J): mean over steps of ln σ_max(J_t)."
    )
    for row in rows:
        for m in ends(row):
            if "elman" in m:
                say(_elman_line(row["label"], m))
    for line in warnings:
        say(f"Warning: {line}")
    for number, line in enumerate(verdicts, 1):
        say(f"{number}. {line}")


def ends(row: dict) -> list[dict]:
    """The first and the last measurement of a row, or the only one."""
    found = row["measurements"]
    return found if len(found) < 2 else [found[0], found[-1]]


def _cells(m: dict) -> tuple[str, ...]:
    bits = f"{mean(m, 'bits'):.2f}" if "bits" in m else "–"
    rate = np.asarray(m["rate"])
    lags = len(m["log_norm"][0])
    return (
        bits,
        f"{rate.mean():+.3f} ± {sd(rate):.3f}" if len(rate) > 1 else f"{rate.mean():+.3f}",
        steps(float(np.median(m["half_life"]))),
        horizon_text(m["horizon"], lags),
        f"{mean(m, 'input_rate'):+.3f}",
        f"{mean(m, 'log_step_norm'):+.3f}",
    )


def steps(value: float) -> str:
    """A number of steps in a few characters."""
    if math.isinf(value):
        return "∞"
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def horizon_text(horizons: list[float], lags: int) -> str:
    """The median horizon; where seeds never get there, how many: "> 200, 3 of 5 seeds"."""
    median = float(np.median(horizons))
    beyond = int(np.sum(np.isinf(horizons)))
    if beyond == 0:
        return f"{median:.0f}"
    if math.isinf(median):
        return f"> {lags}, {beyond} of {len(horizons)} seeds"
    return f"{median:.0f} (> {lags}: {beyond} of {len(horizons)})"


def mean(m: dict, key: str) -> float:
    """The mean over seeds."""
    return float(np.mean(m[key]))


def sd(values: np.ndarray) -> float:
    """The standard deviation over seeds, 0 for a single one."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _elman_line(label: str, m: dict) -> str:
    e = {key: float(np.mean(value)) for key, value in m["elman"].items()}
    return (
        f"{label} {m['when']}: ln σ_max(W_h) {e['log_sigma']:+.3f}, ln ρ(W_h) {e['log_rho']:+.3f}, "
        f"mean ln φ' {e['log_slope']:+.3f}"
    )


def warnings(rows: list[dict], about: dict) -> list[str]:
    """What a reader must know before believing a row."""
    found = []
    for row in rows:
        last = row["measurements"][-1]
        if "bits" not in last or len(row["measurements"]) < 2:
            continue
        bits, unigram = np.asarray(last["bits"]), about["unigram_bits"]
        poor = int(np.sum(~(bits < unigram)))
        if poor:
            found.append(
                f"{row['label']}: {poor} of {len(bits)} models {last['when']} predict no better "
                f"than character frequencies ({bits.mean():.2f} against {unigram:.2f} bits/char); "
                "what they do to gradients says little about trained networks."
            )
    return found


def verdicts(rows: list[dict]) -> list[str]:
    """At most six sentences, each of which can turn out either way."""
    by_label = {row["label"]: row for row in rows}
    found = [
        _norm_and_growth(rows),
        _gates_alone(by_label),
        _forget_bias(by_label),
        _training(rows),
        _four_curves(rows),
        _reach_and_prediction(rows),
    ]
    return [sentence for sentence in found if sentence]


def compare(a: list[float], b: list[float]) -> str:
    """How b's decay compares with a's: "slower", "faster", or "about as fast".

    About as fast: within a tenth of a, or within two standard errors of the difference.
    """
    x, y = float(np.mean(a)), float(np.mean(b))
    if not apart(a, b) or not abs(y - x) > 0.1 * abs(x):
        return "about as fast"
    return "slower" if y > x else "faster"


def apart(a: list[float], b: list[float]) -> bool:
    """Whether two means over seeds differ by more than two standard errors of the difference.

    A single network has no spread of its own: it is given that of the others.
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    spread = sum((sd(v) or sd(w)) ** 2 / len(v) for v, w in ((x, y), (y, x)))
    return bool(abs(x.mean() - y.mean()) > 2 * math.sqrt(spread))


def _norm_and_growth(rows: list[dict]) -> str:
    places = [(row["label"], m) for row in rows for m in ends(row)]
    above = [place for place in places if mean(place[1], "log_step_norm") > 0]
    fading = [place for place in above if mean(place[1], "rate") < 0]
    if not above:
        return (
            "In no row is the mean of ln σ_max(J_t) above 0, which forces every gradient to "
            f"decay; the largest is {max(mean(m, 'log_step_norm') for _, m in places):+.3f}."
        )
    # the one where norm and rate contradict each other most
    contrast = [-mean(m, "log_step_norm") * mean(m, "rate") for _, m in fading or above]
    label, m = (fading or above)[int(np.argmax(contrast))]
    where = (
        f"{label} {m['when']}: σ_max(J_t) = {math.exp(mean(m, 'log_step_norm')):.2f} in the "
        f"geometric mean, rate {mean(m, 'rate'):+.3f} per step; so in {len(fading)} of the "
        f"{len(above)} measurements above 1"
    )
    if fading:
        return f"Norm above 1, gradient vanishes all the same ({where})."
    return f"Norm above 1, and the gradient grows ({where.split(';')[0]})."


def _gates_alone(by_label: dict[str, dict]) -> str:
    plain = by_label.get("Elman")
    gated = [by_label[k] for k in ("LSTM, forget bias 0", "GRU") if k in by_label]
    if plain is None or not gated:
        return ""
    base = plain["measurements"][0]
    lags = len(base["log_norm"][0])
    parts, helped = [], []
    for row in gated:
        m = row["measurements"][0]
        helped.append(compare(base["rate"], m["rate"]))
        parts.append(f"{row['label']} {mean(m, 'rate'):+.3f} ({helped[-1]})")
    horizons = [horizon_text(m["horizon"], lags) for m in _firsts([plain, *gated])]
    still = "" if any(">" in h for h in horizons) else " and cure none of it"
    what = f"slow the decay somewhat{still}" if "slower" in helped else "do not slow the decay"
    return (
        f"At initialisation, gates without a forget bias {what}: Elman {mean(base, 'rate'):+.3f}, "
        f"{', '.join(parts)} per step; horizons {', '.join(horizons)} steps. Other "
        "initialisations and input scales have other rates."
    )


def _firsts(rows: list[dict]) -> list[dict]:
    return [row["measurements"][0] for row in rows]


def _forget_bias(by_label: dict[str, dict]) -> str:
    rows = [by_label.get(f"LSTM, forget bias {bias}") for bias in (0, 1)]
    if rows[0] is None or rows[1] is None:
        return ""
    parts: list[str] = []
    for closed, opened in zip(ends(rows[0]), ends(rows[1]), strict=False):
        how = compare(closed["rate"], opened["rate"])
        rates = f"{mean(closed, 'rate'):+.3f} to {mean(opened, 'rate'):+.3f}"
        parts.append(f"{closed['when']} {how} ({rates} per step)")
    return f"With forget bias 1 the LSTM's gradient fades, against bias 0, {', '.join(parts)}."


def _training(rows: list[dict]) -> str:
    changes: dict[str, list[str]] = {"slower": [], "about as fast": [], "faster": []}
    for row in rows:
        if len(row["measurements"]) < 2:
            return ""
        first, last = ends(row)
        how = compare(first["rate"], last["rate"])
        rates = f"{mean(first, 'rate'):+.3f} to {mean(last, 'rate'):+.3f}"
        changes[how].append(f"{row['label']} ({rates})")
    parts = [f"{how}: {', '.join(who)}" for how, who in changes.items() if who]
    first, last = ends(rows[0])
    return (
        f"Gradients {last['when']} fade, compared with those {first['when']}, {'; '.join(parts)}."
    )


def _four_curves(rows: list[dict]) -> str:
    found = [row for row in rows if "curves" in row["measurements"][-1]]
    if not found:
        return ""
    row = found[-1]
    m = row["measurements"][-1]
    curves = {name: np.mean(values, axis=0) for name, values in m["curves"].items()}
    lag = min(50, len(curves["joint"]))
    joint, direct = curves["joint"][lag - 1], curves["direct_path"][lag - 1]
    frozen = curves["product_of_hidden_blocks"][lag - 1]
    side = "below" if direct < joint else "above"
    return (
        f"The direct path is not the gradient: at lag {lag} ln Πf is {direct:.1f}, "
        f"{abs(direct - joint):.1f} {side} the joint (h, c) Jacobian's {joint:.1f}; the product "
        f"of hidden blocks says {frozen:.1f} ({row['label']} {m['when']})."
    )


def _reach_and_prediction(rows: list[dict]) -> str:
    last = {row["label"]: row["measurements"][-1] for row in rows}
    if len(rows) < 2 or any("bits" not in m for m in last.values()):
        return ""
    best = min(last, key=lambda k: mean(last[k], "bits"))
    far = max(last, key=lambda k: mean(last[k], "input_rate"))
    reach = f"{far} ({mean(last[far], 'input_rate'):+.3f} per step)"
    predicts = f"{best} ({mean(last[best], 'bits'):.2f} bits/char)"
    if best == far:
        return f"The best predictor, {predicts}, is also the one whose loss reaches furthest back."
    if not apart(last[best]["bits"], last[far]["bits"]):
        return (
            f"The loss reaches furthest back in {reach}, which predicts about as well as the best, "
            f"{predicts}: these seeds cannot tell them apart."
        )
    if not apart(last[best]["input_rate"], last[far]["input_rate"]):
        return (
            f"The best predictor, {predicts}, reaches about as far back as any: its input rate is "
            f"{mean(last[best], 'input_rate'):+.3f} per step, that of {reach[:-1]}, within the "
            "spread over seeds)."
        )
    return (
        f"The loss reaches furthest back in {reach}, but {predicts} predicts best: "
        "reach and prediction are two things."
    )
