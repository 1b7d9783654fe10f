"""The command line of the library, `python -m jaxfer`; one module per command."""
