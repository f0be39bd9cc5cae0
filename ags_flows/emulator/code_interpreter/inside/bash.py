"""The kernel of Bash. A script that runs in a sandbox; nothing imports it.

The shell gets a cell as the argument of `eval` on its own standard input, and reports the cell's end on a pipe. Cells
have another input, and a terminal for their output: what they print, read or set does not disturb these reports.
"""

import codecs
import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
from importlib import import_module
from typing import Any

_BASE: Any = import_module("bash_kernel.kernel").BashKernel
_COMMANDS = import_module("bash_kernel.display").build_cmds()

_PREPARED = f"unset HISTFILE; set +o history; export PAGER=cat\n{_COMMANDS}"
_SHOWN = re.compile(r"^(bash_kernel: saved \w+ data to: .*\n)", re.MULTILINE)
_PIECE = 1 << 16
_SIZE = struct.pack("HHHH", 24, 80, 0, 0)
_LOWEST = 200
"""File descriptors that a cell does not use by chance begin here."""


class Bash(_BASE):  # type: ignore[misc]
    """The kernel."""

    do_complete = _BASE.__mro__[1].do_complete

    def _start_bash(self) -> None:
        if os.getpgrp() != os.getpid():
            # An interrupt goes to the whole group: the shell, and what it runs.
            os.setpgid(0, 0)
        self._cell = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # A program that reads from the terminal would never end: it can be written to only.
        self._output, terminal = os.openpty()
        writable = os.open(os.ttyname(terminal), os.O_WRONLY | os.O_NOCTTY)
        modes = termios.tcgetattr(terminal)
        modes[1] &= ~termios.OPOST
        termios.tcsetattr(terminal, termios.TCSANOW, modes)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, _SIZE)
        os.set_blocking(self._output, False)
        self._reports, reporting = os.pipe()
        self._out, self._report = (fcntl.fcntl(fd, fcntl.F_DUPFD, _LOWEST) for fd in (writable, reporting))
        given = (self._out, self._report)
        # The shell would inherit that the signal is ignored.
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            self._bash: Any = subprocess.Popen(
                ["bash", "-i"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=given,
            )
        finally:
            signal.signal(signal.SIGINT, before)
        for fd in (writable, reporting, self._report):
            os.close(fd)
        # Without a process that has it open, a terminal cannot be read any more.
        self._terminal = terminal
        self._tell(_PREPARED)

    def _end_bash(self) -> None:
        for fd in (self._output, self._terminal, self._out, self._reports):
            os.close(fd)
        with contextlib.suppress(OSError):
            self._bash.stdin.close()

    def do_execute(self, code: str, silent: bool, *_: Any, **__: Any) -> dict[str, Any]:
        """Execute a cell."""
        self.silent = silent
        status = self._run(code)
        reply = {"execution_count": self.execution_count}
        if not status:
            return {**reply, "status": "ok", "payload": [], "user_expressions": {}}
        error = {"ename": "", "evalue": str(status), "traceback": []}
        self.send_response(self.iopub_socket, "error", error)
        return {**reply, **error, "status": "error"}

    def _run(self, code: str) -> int:
        """Run code and send its output; return its exit code, also that of a shell which it has ended."""
        asked = False
        while True:
            try:
                if not asked:
                    asked = True
                    self._cell += 1
                    self._tell(code)
                    self._ask()
                return self._follow()
            except KeyboardInterrupt:
                # The shell has the signal too; it may have lost the question.
                self._ask()

    def _tell(self, code: str) -> None:
        text = "".join(chr(each) if chr(each).isalnum() and each < 128 else f"\\x{each:02x}" for each in code.encode())
        out = self._out
        self._write(f"builtin eval $'{text}' </dev/null >&{out} 2>&{out} {out}>&- {self._report}>&-\n")

    def _ask(self) -> None:
        self._write(f'builtin echo "{self._cell} $?" >&{self._report}\n')

    def _write(self, line: str) -> None:
        # A shell that has ended does not read: its reports end too.
        with contextlib.suppress(BrokenPipeError):
            self._bash.stdin.write(line.encode())
            self._bash.stdin.flush()

    def _follow(self) -> int:
        """Send output until the cell ends; return its exit code."""
        report = b""
        while True:
            ready, _, _ = select.select([self._output, self._reports], [], [])
            if self._reports in ready:
                read = os.read(self._reports, 4096)
                if not read:
                    return self._ended()
                report += read
            self._send_output()
            *lines, report = report.split(b"\n")
            for line in lines:
                cell, status = (int(number) for number in line.split())
                if cell == self._cell:
                    # What the cell has written is in the terminal before its end is reported.
                    self._send_output()
                    return status

    def _ended(self) -> int:
        """Wait for the end of a shell, or of the program that has replaced it, and start another."""
        while self._bash.poll() is None:
            select.select([self._output], [], [], 0.05)
            self._send_output()
        self._send_output()
        code: int = self._bash.returncode
        self._end_bash()
        self._start_bash()
        self._show("Restarting Bash\n")
        return code if code >= 0 else 128 - code

    def _send_output(self) -> None:
        """Send all output that is there."""
        rest, data = "", b" "
        while data:
            try:
                data = os.read(self._output, _PIECE)
            except BlockingIOError:
                data = b""
            text = rest + self._decoder.decode(data)
            if len(text) < _PIECE and data:
                rest = text
                continue
            # The line that shows a picture stays in one piece.
            cut = (text.rfind("\n") + 1 if data else 0) or len(text)
            self._show(text[:cut])
            rest = text[cut:]

    def _show(self, text: str) -> None:
        for part in _SHOWN.split(text):
            if _SHOWN.match(part):
                try:
                    self.process_output(part)
                    continue
                except (OSError, ValueError, AttributeError):
                    # The text of another program, or not a picture.
                    pass
            if part and not self.silent:
                self.send_response(self.iopub_socket, "stream", {"name": "stdout", "text": part})
