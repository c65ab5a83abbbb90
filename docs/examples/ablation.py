"""Which parts of a model matter? Train it without each, with several seeds, and compare.

Semi-IIN has a stream of messages within modalities (intra) and one between them (inter). Each is tried alone on the
synthetic corpus. You see each training as it ends, then the ranking: a difference is significant where its 95 %
interval excludes 0. `runs/streams` has the table, a figure and every run. Run the script again to resume. A minute on
a CPU.
"""

import gmsa

table = gmsa.compare(
    "synthetic",
    vary={"model.streams": ["both", "intra", "inter"]},  # the first one is the reference
    overrides={"protocol.name": "supervised"},
    seeds=[1, 2],
    jobs=2,
    out="runs/streams",
)

print("\nMean absolute error on the validation split, and the difference to the reference:")
for row in table.rows:
    error = row["valid"]["MAE"]
    line = f"{row['rank']}. {row['setting']}: {error['mean']:.2f} ± {error['std']:.2f}"
    if not row["reference"]:
        change = row["difference"]["valid"]
        line += f", {change['difference']:+.2f} [{change['low']:+.2f}, {change['high']:+.2f}]"
    print(line)
