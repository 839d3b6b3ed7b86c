"""The results as a table in Markdown."""

import statistics


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def cell(x, digits=1, scale=1):
    if x is None:
        return "?"
    return f"{scale * x['median']:.{digits}f} ({scale * x['min']:.{digits}f} to {scale * x['max']:.{digits}f})"


def goal(row):
    ratio, share = row["goal"]["ratio"], row["goal"]["share"]
    if ratio is None:
        return "none"
    return f"{ratio}" + (f" or {100 * share:.0f} %" if share else "")


def peak(row):
    if not row.get("peak"):
        return "?"
    unit = "GFLOP/s" if "prefill" in row["row"] else "GB/s"
    return f"{row['peak']['median'] / 1e9:.0f} {unit}"


def markdown(results, args):
    sizes = f"{args.prompt} prompt tokens, {args.gen} generated, deep rows after {args.depth}"
    yield f"Tokens per second, {args.threads} threads, {sizes}; median (least to most) of {args.rounds} interleaved"
    yield f"rounds; {args.busy} other processes kept busy. fa: whether llama.cpp was faster with flash attention.\n"
    yield "| model | row | inlaid | llama.cpp | fa | ratio | goal | share | llama.cpp's | peak | met | foreign load |"
    yield "| --- " * 12 + "|"
    for row in results:
        if "skipped" in row:
            continue
        load = cell(row["foreign"], 0, 100) + " %" if row["foreign"] else "?"
        share, ratio = row.get("share"), row.get("ratio")
        theirs = f"{100 * share['median'] / ratio['median']:.0f} %" if share and ratio else "?"
        cells = [
            row["model"],
            row["row"],
            cell(row.get("inlaid")),
            cell(row["llama.cpp"]),
            "on" if row["flash_attention"] else "off",
            cell(ratio, 2),
            goal(row),
            cell(share, 0, 100) + " %" if share else "?",
            theirs,
            peak(row),
            {True: "yes", False: "no", None: ""}[row.get("met")],
            load,
        ]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    for row in results:
        if "skipped" in row:
            yield f"* {row['model']}, {row['row']}: skipped: {row['skipped']}"
