"""The admin command line of leafdb: a client like any other."""
