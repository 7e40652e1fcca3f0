"""Runs jobs on the nodes of a Ray cluster, each of which has this project installed in the same version.

The run folder comes back when the run ends, finished or not, so that an unfinished run can go on on any node, or here.
"""

import logging
import os
import signal
import socket
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import ray
from ray._private import services
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import tasks
from training.storage.files import replace_folder
from workers.job import Done, Job
from workers.node import FILES, ROOT, Outcome, Sent, Task, contents, describe, sent, values, work, write_contents

RETRIES = 3  # of a run whose node is lost
PATIENCE = 60.0  # seconds in which a run that is asked to stop may save what it has


class Cluster:
    def __init__(self, address: str, threads: int) -> None:
        self.threads, self.at = threads, f"the Ray cluster at {address}"
        self.sent = dict[Path, Sent]()
        handler = signal.getsignal(signal.SIGTERM)
        try:
            place = services.canonicalize_bootstrap_address_or_die(address)
            host, _, port = place.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself would try for minutes
            os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # else without end
            ray.init(address=place, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # of many kinds: no cluster, other versions, a wrong address
            reason = " ".join(str(error).split()).split(". ")[0]
            raise ValueError(f"{self.at} cannot be reached ({reason}); start it with `ray start --head`") from error
        signal.signal(signal.SIGTERM, handler)  # the caller's, in place of Ray's
        try:
            self._look_at_nodes()
        except BaseException:
            ray.shutdown()
            raise

    def _look_at_nodes(self) -> None:
        """Checks that every node has our version, and counts what runs at a time."""
        here, gpu_mib = describe(), []
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        for node in nodes:
            on = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            at = f"{self.at}: node {node['NodeManagerAddress']}"
            try:
                found = ray.get(ray.remote(describe).options(num_cpus=0, scheduling_strategy=on).remote(), timeout=120)
            except ray.exceptions.RayError as error:
                reason = " ".join(str(error).split())[-100:]
                raise ValueError(f"{at} cannot run this project ({reason}); install it there, editable") from error
            if difference := found.difference(here):
                raise ValueError(f"{at} has {difference}; install the same there")
            gpu_mib += [found.gpu_mib] * bool(node["Resources"].get("GPU"))
        self.gpu_mib = min(gpu_mib, default=0.0)
        self.gpus = sum(int(node["Resources"].get("GPU", 0)) for node in nodes)
        self.memory = max((node["Resources"].get("memory", 0.0) for node in nodes), default=0.0)
        self.count = self.gpus or sum(int(node["Resources"]["CPU"] / self.threads) for node in nodes)
        if not self.count:
            raise ValueError(f"{self.at}: no node has {self.threads} cores")
        self.first = max(nodes, key=lambda node: "GPU" in node["Resources"])["NodeID"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        ray.shutdown()  # ends what still runs

    def needs(self, memory_mib: float) -> dict[str, float]:
        """Returns what Ray must find free on a node. More than a node has would wait for ever, so it asks for all."""
        if not self.gpus:
            return {"num_cpus": self.threads, "memory": min(memory_mib * 2**20, self.memory)}
        share = memory_mib / self.gpu_mib if memory_mib and self.gpu_mib else 1.0
        return {"num_cpus": self.threads, "num_gpus": min(1.0, round(share, 3) + 0.001)}

    def _send(self, path: Path) -> Sent:
        """Sends a file or folder once, as it is at its first use."""
        if path.resolve() not in self.sent:
            self.sent[path.resolve()] = sent(path)
        return self.sent[path.resolve()]

    def _start(self, job: Job, on_one: bool) -> Any:
        script = Path(job.words[0]).resolve()
        if not script.is_relative_to(ROOT):
            raise ValueError(f"{job.words[0]}: is not among the scripts of this project, which the nodes have")
        words = (str(script.relative_to(ROOT)), *job.words[1:])
        files = {value: self._send(Path(value)) for _, _, value in values(words, list(FILES)) if Path(value).exists()}
        names = [value for _, _, value in values(words, ["--dataset"]) if value in tasks.NAMES]
        file = tasks.find(names[0], tasks.Task).file if names else None
        usual = Path(os.environ.get("DATA_DIR") or "data", file) if file else None
        data = self._send(usual) if usual and usual.exists() else None
        before = ray.put(contents(job.folder)) if job.folder.exists() else None
        options: dict[str, Any] = self.needs(job.memory_mib) | {"max_retries": RETRIES}
        if on_one:  # another one, should it be busy or lost
            options |= {"scheduling_strategy": NodeAffinitySchedulingStrategy(self.first, soft=True)}
        return ray.remote(work).options(**options).remote(Task(words, files, data, before, self.threads))

    def run(self, jobs: Iterable[Job | None], on_one: bool = False) -> Generator[Done, None, None]:
        coming, running = iter(jobs), dict[Any, Job]()
        try:
            while True:
                while job := next(coming, None):
                    running[self._start(job, on_one)] = job
                if not running:
                    return
                (ref,), _ = ray.wait([*running])
                done = self._received(running[ref], ref)
                del running[ref]  # not before it is written
                yield done
        finally:
            self._stop(running)

    def _received(self, job: Job, ref: Any) -> Done:
        """Writes what has come back. A run that was lost with its nodes has failed."""
        job.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            outcome = ray.get(ref)
        except ray.exceptions.RayError as error:
            outcome = Outcome(1, 0.0, f"{error}\n", {})
        if outcome.files:
            replace_folder(job.folder, lambda new: write_contents(new, outcome.files))
        with job.log.open("a") as log:
            log.write(outcome.log)
        return Done(job, outcome.status, outcome.seconds)

    def _stop(self, running: Mapping[Any, Job]) -> None:
        """Stops the runs as Ctrl-C would, and keeps what they have. Raises the first OSError of one that does not fit,
        once the others are written."""
        for ref in running:
            ray.cancel(ref)
        if not running:
            return
        ended, stuck = ray.wait([*running], num_returns=len(running), timeout=PATIENCE)
        for ref in stuck:
            ray.cancel(ref, force=True)
        failed = list[OSError]()
        for ref in ended:
            try:
                ray.get(ref)
                self._received(running[ref], ref)
            except ray.exceptions.RayError:  # it had not begun, or is lost
                continue
            except OSError as error:
                failed.append(error)
        if failed:
            raise failed[0]
