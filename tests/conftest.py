"""Ctrl-C means Ctrl-C: a shell that starts the tests in the background has them ignore it, and their children would, too."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
