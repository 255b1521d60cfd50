"""Tell penguins apart by their measurements: load, train, evaluate, push.

A KFP v2 pipeline like any other: it knows nothing of the operator. The Pipeline manifest beside it is made by

    kfp-operator pipelines build examples/penguin/pipeline.py --output examples/penguin/pipeline.yaml

The model that `push` puts up carries its accuracy and `serving: true` in its metadata; a Run that declares it as an artifact
(`push:model`, see runs.yaml) tells it to whoever subscribes to run-completion events, as the server in examples/serving does.
"""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

PYTHON = "python:3.12"
LEARNING = ["pandas>=2", "scikit-learn>=1.4"]


@dsl.component(base_image=PYTHON, packages_to_install=["palmerpenguins>=0.1.6"])
def load(test_size: float, seed: int, train: Output[Dataset], test: Output[Dataset]):
    """Split the Palmer penguins (344, of which 342 were measured) into data to learn from and data to be judged by."""
    from palmerpenguins import load_penguins

    measured = load_penguins().dropna(subset=["bill_length_mm"])
    judged = measured.sample(frac=test_size, random_state=seed)
    learned = measured.drop(judged.index)
    for data, artifact in ((learned, train), (judged, test)):
        data.to_csv(artifact.path, index=False)
        artifact.metadata["rows"] = len(data)
    print(f"{len(learned)} penguins to learn from, {len(judged)} to be judged by")


@dsl.component(base_image=PYTHON, packages_to_install=LEARNING)
def train(data: Input[Dataset], label: str, regularization: float, model: Output[Model]):
    """Fit a logistic regression that predicts the column `label` from the four measurements."""
    import joblib
    import pandas as pd
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
    penguins = pd.read_csv(data.path)
    if label not in penguins:
        raise ValueError(f"the data has no column {label!r} to learn; it has {', '.join(penguins)}")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=1 / regularization, max_iter=1000))
    classifier.fit(penguins[features].to_numpy(), penguins[label])
    joblib.dump(classifier, model.path)
    model.metadata.update(framework="scikit-learn", label=label, features=features)


@dsl.component(base_image=PYTHON, packages_to_install=LEARNING)
def evaluate(data: Input[Dataset], model: Input[Model], metrics: Output[Metrics]) -> float:
    """Accuracy of the model on penguins it has not seen."""
    import joblib
    import pandas as pd

    penguins = pd.read_csv(data.path)
    classifier = joblib.load(model.path)
    accuracy = float(classifier.score(penguins[model.metadata["features"]].to_numpy(), penguins[model.metadata["label"]]))
    metrics.log_metric("accuracy", accuracy)
    print(f"accuracy {accuracy:.3f} on {len(penguins)} penguins")
    return accuracy


@dsl.component(base_image=PYTHON)
def push(trained: Input[Model], accuracy: float, min_accuracy: float, model: Output[Model]):
    """Put the model up for serving, if it is good enough."""
    import shutil

    if accuracy < min_accuracy:
        raise ValueError(f"an accuracy of {accuracy:.3f} is not enough to be served: {min_accuracy} is wanted")
    shutil.copyfile(trained.path, model.path)
    model.metadata.update(trained.metadata, accuracy=accuracy, pushed=1, serving=True)


@dsl.pipeline(name="penguin-pipeline", description="Tells Palmer penguins apart by their measurements")
def penguin_pipeline(
    label: str = "species",
    test_size: float = 0.25,
    regularization: float = 1.0,
    min_accuracy: float = 0.9,
    seed: int = 42,
):
    """Load, train, evaluate, push.

    Args:
        label: The column to predict: species or island.
        test_size: Share of the penguins that the model is judged by.
        regularization: Strength, above 0.
        min_accuracy: What a model must reach to be served.
        seed: Of the split.

    """
    penguins = load(test_size=test_size, seed=seed)
    trained = train(data=penguins.outputs["train"], label=label, regularization=regularization)
    judged = evaluate(data=penguins.outputs["test"], model=trained.outputs["model"])
    push(trained=trained.outputs["model"], accuracy=judged.outputs["Output"], min_accuracy=min_accuracy)
