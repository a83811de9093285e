"""`python -m fallow.cli` is `fallow`."""

from . import main

if __name__ == "__main__":
    main()
