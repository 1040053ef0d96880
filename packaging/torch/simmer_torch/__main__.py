"""`python -m simmer_torch`, the same as `simmer-torch`."""

from simmer_torch import main

main()
