"""Runs jobs on a Ray cluster; nothing of Ray is imported before one is asked for."""

from workers.job import Workers


def cluster(address: str, threads: int = 1) -> Workers:
    """Runs jobs, each with so many threads, on the Ray cluster at `address`, or on the one of this machine (`auto`).

    Raises ValueError without Ray, when it cannot be reached, and when a node has other code or libraries.
    """
    try:
        from workers.driver import Cluster
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ValueError("Ray is not installed: pip install -e '.[cluster]', here and on every node") from error
    return Cluster(address, threads)
