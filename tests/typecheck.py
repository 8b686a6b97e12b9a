"""The runtime type checker of the tests."""

from beartype import BeartypeConf, beartype

# as in every static checker, an int will do where a float is asked for
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
