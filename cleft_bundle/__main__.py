"""`python -m cleft_bundle` is the console command."""

from cleft_bundle.commands import main

if __name__ == "__main__":
    main()
