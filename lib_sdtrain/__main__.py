"""`python -m lib_sdtrain`."""
import sys

from lib_sdtrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
