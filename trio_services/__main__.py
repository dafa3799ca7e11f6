"""`python -m trio_services`: the same as the command `trio-services`."""

from .cli import main

if __name__ == "__main__":
    main()
