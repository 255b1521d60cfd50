"""``python -m kfp_operator`` is ``kfp-operator``."""

from kfp_operator.cli.main import main

if __name__ == "__main__":
    main()
