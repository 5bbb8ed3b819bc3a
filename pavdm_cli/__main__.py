"""`python -m pavdm_cli` is the `pavdm` command."""

from pavdm_cli.app import main

if __name__ == "__main__":
    main()
