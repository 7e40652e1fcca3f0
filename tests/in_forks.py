"""Runs a script that makes many runs, as scripts/study.py does. They are forked from a fork of this process, which has
imported the libraries, where `python -m workers.warm` would need seconds for them. A study times each update once.

    in_forks.py SCRIPT FLAGS
"""

import os
import runpy
import sys
import traceback
from functools import cached_property

import studies.phases
import workers.local
from workers.warm import serve


class Server:
    """What workers/local.py uses of subprocess.Popen."""

    def __init__(self):
        (jobs, told), (heard, answers) = os.pipe(), os.pipe()
        self.pid, self.status = os.fork(), None
        if self.pid == 0:
            os.setpgid(0, 0)
            os.dup2(jobs, 0)
            os.dup2(2, 1)
            os.closerange(3, answers)  # among them the lock of a study's folder, which would outlive the study
            os.closerange(answers + 1, os.sysconf("SC_OPEN_MAX"))
            try:
                serve(0, answers)
            except BaseException:  # the script must not go on in a child
                traceback.print_exc()
            os._exit(0)
        os.close(jobs)
        os.close(answers)
        self.stdin, self.stdout = os.fdopen(told, "wb"), os.fdopen(heard, "rb")

    def poll(self):
        return self.wait(os.WNOHANG)

    def wait(self, options=0):
        if self.status is None:
            ended, status = os.waitpid(self.pid, options)
            self.status = os.waitstatus_to_exitcode(status) if ended else None
        return self.status


class Local(workers.local.Local):
    @cached_property
    def server(self):
        return Server()


workers.local.Local = Local
studies.phases.TIMES = 1
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
