"""What every face can ask of an engine, by name: the command line through the control socket, and in-process.

An operation takes JSON parameters and returns JSON. It translates; the rooms decide.
"""

from eventcore.operations.table import OPERATIONS, Send, dispatcher, perform

__all__ = ["OPERATIONS", "Send", "dispatcher", "perform"]
