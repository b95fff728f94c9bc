"""Measures HyperQueue from its own Python package: hyperqueue.py submit|true COUNT GATE GATE

The last line on stdout is a JSON object with `seconds`.
"""

import json
import os
import sys
import time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

TRUE = "/usr/bin/true" if os.path.exists("/usr/bin/true") else "/bin/true"


def add(job, args, **options):
    return job.program(args, stdout=None, stderr=None, **options)


def submits(client, count):
    """One job a request, one after the other, with no worker that could run them."""
    jobs = []
    for _ in range(count):
        job = Job()
        add(job, [TRUE])
        jobs.append(job)
    begun = time.monotonic()
    for job in jobs:
        client.submit(job)
    return time.monotonic() - begun


def true_jobs(cluster, client, count, gates):
    """One job of many tasks behind two that wait at the gates; the end is when a task that depends on all of them starts."""
    cluster.start_worker(WorkerConfig(cores=2))
    held = Job()
    for gate in gates:
        add(held, ["cat", gate], priority=1)
    held = client.submit(held)
    # Opening waits until the job reads.
    files = [os.open(gate, os.O_WRONLY) for gate in gates]
    done = os.path.join(os.path.dirname(gates[0]), "done")
    os.mkfifo(done)
    # Open for reading and writing, so that opening does not wait and reading does.
    stamp = os.open(done, os.O_RDWR)
    job = Job()
    tasks = [add(job, [TRUE]) for _ in range(count)]
    add(job, ["sh", "-c", 'echo >"$0"', done], deps=tasks)
    job = client.submit(job)
    begun = time.monotonic()
    for file in files:
        os.close(file)
    os.read(stamp, 1)
    seconds = time.monotonic() - begun
    # An error in any task is an exception here.
    client.wait_for_jobs([held, job])
    return seconds


def main():
    what, count, gates = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    with LocalCluster() as cluster:
        client = cluster.client()
        if what == "submit":
            seconds = submits(client, count)
        else:
            seconds = true_jobs(cluster, client, count, gates)
    print(json.dumps({"seconds": seconds}), flush=True)
    # What its threads still do is of no interest.
    os._exit(0)


if __name__ == "__main__":
    main()
