"""Train a model, look at its scores, predict with it, save it and load it again.

The data is the synthetic corpus that comes with gmsa: made-up clips whose scores say nothing about real ones. You see
the epochs, a table of scores, and the predictions of five clips beside their labels. The run folder, `runs/synthetic`,
has the tables and figures. Half a minute on a CPU.
"""

import gmsa

run = gmsa.fit("synthetic")

print("\nMean absolute error per epoch, on the validation split:")
print(*(f"{epoch['valid']['MAE']:.2f}" for epoch in run.history))
test = run.metrics["test"]
print(f"Test split: MAE {test['MAE']['mean']:.2f}, correlation {test['Corr']['mean']:.2f}")

# Any file, feature store, list of utterances or dict of arrays can be predicted. Labels are not looked at.
clips = gmsa.load_corpus(run.config.data).splits["test"][:5]
answers = run.predict(clips)
print("\nSentiment from -3 (negative) to 3 (positive):")
for clip, value in zip(clips, answers.values, strict=True):
    print(f"predicted {value:+.1f}, label {clip.label:+.1f}: {clip.text}")
answers.to_csv("answers.csv")

# A saved model is what predicting needs and no more. It can be copied to another machine.
folder = run.save(f"{run.folder}-model")
loaded = gmsa.load(folder)
assert (loaded.predict(clips).values == answers.values).all()
print(f"\nThe model in {folder} predicts the same.")
