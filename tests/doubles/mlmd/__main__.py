"""``python -m tests.doubles.mlmd``: install the engine now, so that people see what is done before the first test."""

from tests.doubles.mlmd.environment import EngineUnavailable, environment

if __name__ == "__main__":
    try:
        environment()
    except EngineUnavailable as error:
        print(f"tests with ML Metadata are skipped: {error}")
