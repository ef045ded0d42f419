"""The base of every error that avtune raises on purpose."""


class AvtuneError(Exception):
    """Something a user can mend: the message is one line that says what is wrong and what to do.

    The command line prints it without a traceback. Each package derives its own kinds
    (for example ``avtune.media.MediaError``), so that a program can tell them apart.
    """
