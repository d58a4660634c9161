"""Everything that can be done on a host's machine, in one place."""
from __future__ import annotations

from lib_sdtrain.api.dataset import DatasetService
from lib_sdtrain.api.engine import Engine
from lib_sdtrain.api.history import History
from lib_sdtrain.api.merging import MergeService
from lib_sdtrain.api.preparing import PreparingService
from lib_sdtrain.api.queue import Queue
from lib_sdtrain.api.queue_kinds import MERGE, RESUME, TRAIN, MergeKind, ResumeKind, TrainKind
from lib_sdtrain.api.removal import Removal
from lib_sdtrain.api.sampling import SampleService
from lib_sdtrain.api.service import TrainService
from lib_sdtrain.host.protocol import Host
from lib_sdtrain.jobs import JobRunner


class Services:
    """What the tab and the API offer. All of them share one runner, so that two jobs cannot meet."""

    def __init__(self, host: Host, engine: Engine) -> None:
        self.host = host
        self.runner = JobRunner(host)
        self.train = TrainService(host, engine, self.runner)
        self.dataset = DatasetService(self.train)
        self.preparing = PreparingService(self.train)
        self.merge = MergeService(host, self.runner)
        self.sample = SampleService(host, self.runner)
        self.history = History(host, self.runner, self.merge.history)
        self.removal = Removal(host, self.history)
        kinds = {TRAIN: TrainKind(self.train), RESUME: ResumeKind(self.train), MERGE: MergeKind(self.merge)}
        self.queue = Queue(self.runner, host.output_dir() / "queue.json", kinds)
        self.train.claimed = self.queue.claims
