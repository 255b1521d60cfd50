"""Say what a model that is served takes the penguins for: the run that follows a training.

The model comes as a parameter, its URI: whoever starts the run says which one (in configurations.yaml, the artifact `serving-model` of the
training that has just succeeded). The Pipeline manifest beside it is made by

    kfp-operator pipelines build examples/schedules/report.py --output examples/schedules/report.yaml
"""

from kfp import dsl
from kfp.dsl import Metrics, Output

PYTHON = "python:3.12"


@dsl.component(base_image=PYTHON, packages_to_install=["pandas>=2", "scikit-learn>=1.4", "palmerpenguins>=0.1.6"])
def count(model: str, metrics: Output[Metrics]) -> str:
    """How many penguins of each species the model sees; a line for the log and the metrics."""
    from collections import Counter
    from urllib.parse import unquote, urlparse

    import joblib
    from palmerpenguins import load_penguins

    features = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
    penguins = load_penguins().dropna(subset=["bill_length_mm"])
    where = urlparse(model)
    classifier = joblib.load(unquote(where.path) if where.scheme == "file" else model)
    seen = Counter(str(species) for species in classifier.predict(penguins[features].to_numpy()))
    for species, number in sorted(seen.items()):
        metrics.log_metric(species, number)
    said = ", ".join(f"{number} {species}" for species, number in sorted(seen.items()))
    print(f"{model} sees {said}")
    return said


@dsl.pipeline(name="penguin-report", description="Says what a served model takes the Palmer penguins for")
def penguin_report(model: str):
    """Count.

    Args:
        model: URI of the model.

    """
    count(model=model)
