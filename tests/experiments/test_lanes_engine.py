"""The engine of lanes: the same experiment, the same records but for rounding, whoever ran them."""

import dataclasses
import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import deltaproof
from deltaproof.errors import ConfigError
from deltaproof.experiments import lane_run
from deltaproof.experiments.engines.engine import ignore
from deltaproof.experiments.engines.lanes import LanesEngine, _Ticket, said_of, why_no_lane
from deltaproof.experiments.jobs import Job, LaneReport, LaneRequest
from deltaproof.experiments.lane_run import run_lanes
from deltaproof.experiments.run import run
from deltaproof.records.store import Store
from deltaproof.training.checkpoints import Checkpoint
from deltaproof.training.lanes.trial import Trial
from small import FAST, Sayings

PLAN = {**FAST, "methods": "full,lora(rank=2),lora(rank=4),head", "trials": 3, "seeds": 2, "workers": 1}


@pytest.fixture(scope="module")
def both(bert, reviews_csv, tmp_path_factory):
    """The same plan by both engines: their stores, and what the one of lanes said."""
    folder, said = tmp_path_factory.mktemp("runs"), Sayings()
    deltaproof.compare(model=bert, data=reviews_csv, out=folder / "local", **PLAN)
    deltaproof.compare(model=bert, data=reviews_csv, out=folder / "lanes", engine="lanes", reporter=said, **PLAN)
    return Store(folder / "local"), Store(folder / "lanes"), said.texts


@pytest.fixture
def jobs(both, tmp_path):
    """The tuning runs of one method as jobs for an empty folder, with the records that they have to come to."""
    shutil.copytree(both[0].folder / "data", tmp_path / "run" / "data")
    records = [each for each in both[0].records() if each.spec.stage == "tuning" and "lora" in each.spec.contestant]
    return [Job(record.spec, tmp_path / "run", "cpu") for record in records], {r.spec.key: r for r in records}


def assert_alike(one, other):
    assert one.status == other.status
    assert one.validation == pytest.approx(other.validation, rel=1e-4)
    assert one.test == pytest.approx(other.test, rel=1e-4)
    assert [entry["step"] for entry in one.history] == [entry["step"] for entry in other.history]
    for mine, theirs in zip(one.history, other.history, strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)


def test_lanes_come_to_the_records_of_the_local_engine_under_the_same_keys(both):
    local, lanes = ({record.spec.key: record for record in store.records()} for store in both[:2])
    assert local.keys() == lanes.keys()
    for key, record in local.items():
        assert_alike(lanes[key], record)
        if record.spec.stage == "final":
            np.testing.assert_allclose(
                both[1].predictions(key).outputs, both[0].predictions(key).outputs, rtol=1e-3, atol=1e-5
            )


def test_a_record_says_in_what_company_it_was_trained(both):
    lanes = [record for record in both[1].records() if record.spec.stage in ("tuning", "final")]
    in_company = {record.spec.contestant for record in lanes if "lanes" in record.environment}
    assert in_company == {"lora(rank=2)", "lora(rank=4)", "head"}
    record = next(record for record in lanes if "lanes" in record.environment)
    assert lane_run.NOTE in record.notes
    assert record.environment["lanes"]["lanes"] >= 2
    assert record.cost.train_seconds > 0
    assert record.cost.peak_memory_bytes > 0
    assert record.seconds > record.cost.train_seconds


def test_it_says_what_was_measured_and_chosen(both):
    assert any("a step in lanes is" in text and "in one pass" in text for text in both[2])
    assert any("go alone: it trains most of the model" in text for text in both[2])


def test_what_stands_on_record_is_not_trained_again(both, bert, reviews_csv):
    before = {path: path.stat().st_mtime_ns for path in (both[1].folder / "records").iterdir()}
    deltaproof.compare(model=bert, data=reviews_csv, out=both[1].folder, engine="lanes", **PLAN)
    assert {path: path.stat().st_mtime_ns for path in (both[1].folder / "records").iterdir()} == before


def test_lanes_that_were_killed_go_on_where_they_stood(jobs, monkeypatch):
    monkeypatch.setattr("deltaproof.experiments.run.Checkpoint", lambda folder: Checkpoint(folder, every_seconds=0))
    asked, wanted = jobs
    request, steps = LaneRequest(tuple(asked), side_by_side=len(asked)), []

    def killed(key, step, n_steps, values):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_lanes(request, killed)
    store = Store(asked[0].folder)
    assert not list(store.records())
    shutil.rmtree(
        store.folder / "checkpoints" / asked[0].spec.key
    )  # killed between one lane's checkpoint and another's
    report = run_lanes(request, lambda key, step, n_steps, values: steps.append((key, step)))
    assert report.alone == ()
    assert report.n_lanes == len(asked)
    assert min(step for key, step in steps if key != asked[0].spec.key) == 3
    for key, record in wanted.items():
        assert_alike(store.find(key), record)
    assert not (store.folder / "checkpoints" / asked[0].spec.key).exists()


def test_trials_rest_at_their_rung_in_lanes_and_go_on_from_there(jobs, tmp_path):
    def often_scored(job):
        training = {**job.spec.training, "evaluations_per_epoch": 2}
        return dataclasses.replace(job, spec=dataclasses.replace(job.spec, training=training))

    def beginning(job):
        spec = dataclasses.replace(job.spec, stage="rung", training={**job.spec.training, "rung_step": 3})
        return dataclasses.replace(job, spec=spec, begins=job.spec.key)

    whole = [often_scored(job) for job in jobs[0][:2]]
    parts, store = [beginning(job) for job in whole], Store(whole[0].folder)
    assert run_lanes(LaneRequest(tuple(parts), side_by_side=2)).n_lanes == 2
    for job in parts:
        record = store.find(job.spec.key)
        assert record.status == "done"
        assert [entry["step"] for entry in record.history] == [3]
        assert store.rung_path(job.spec.key, "start").exists()
        assert store.rung_path(job.spec.key, "rung").exists()
    steps = []
    run_lanes(LaneRequest(tuple(whole), side_by_side=2), lambda key, step, n_steps, values: steps.append(step))
    assert min(steps) == 4
    shutil.copytree(store.folder / "data", tmp_path / "alone" / "data")
    for job in whole:
        assert_alike(store.find(job.spec.key), run(dataclasses.replace(job, folder=tmp_path / "alone")))


def test_where_lanes_do_not_pay_everyone_is_left_to_run_alone(jobs, monkeypatch):
    asked, _ = jobs
    monkeypatch.setattr(
        lane_run, "try_lanes", lambda lanes, runs, rows, sizes, is_timed: Trial((), 1.0, {2: 0.99, 1: 1.2})
    )
    report = run_lanes(LaneRequest(tuple(asked), may_decline=True))
    assert {key for key, _ in report.alone} == {job.spec.key for job in asked}
    assert report.n_lanes == 0
    assert said_of(["lora"] * 3, report) == "a step in lanes is 1.01 times as fast as alone (3 of lora): each alone"
    assert not list(Store(asked[0].folder).records())


@pytest.mark.parametrize(("seeds", "sizes"), [([0] * 6, (6, 1, 4)), ([0, 0, 0, 1, 1, 2], (6, 3, 1, 4))])
def test_tried_are_all_in_one_pass_those_of_one_seed_and_fewer(seeds, sizes, monkeypatch):
    """And where seeds differ, on batches of other lengths for each."""
    lengths = np.arange(100)
    rows, settings = SimpleNamespace(lengths=lengths), SimpleNamespace(batch_size=10)
    lanes = [SimpleNamespace(run=SimpleNamespace(seed=seed, train_rows=rows, settings=settings)) for seed in seeds]
    monkeypatch.setattr(lane_run, "try_lanes", lambda lanes, runs, rows_of, sizes, is_timed: (rows_of, sizes))
    rows_of, tried = lane_run._tried(None, lanes, LaneRequest(()), 6)
    assert tried == sizes
    means = {seed: lengths[rows].mean() for seed, rows in zip(seeds, rows_of, strict=True)}
    assert list(means.values()) == sorted(means.values())
    assert np.mean(list(means.values())) == pytest.approx(49.5, abs=0.5)


def test_a_lane_that_would_go_astray_is_left_out(jobs, monkeypatch):
    asked, wanted = jobs
    monkeypatch.setattr(lane_run, "try_lanes", lambda lanes, runs, rows, sizes, is_timed: Trial((1,), 1.0, {2: 0.5}))
    report = run_lanes(LaneRequest(tuple(asked)))
    assert report.alone == ((asked[1].spec.key, "its gradient in lanes is not its own"),)
    store = Store(asked[0].folder)
    assert store.find(asked[1].spec.key) is None
    for job in (asked[0], *asked[2:]):
        assert_alike(store.find(job.spec.key), wanted[job.spec.key])


def test_where_too_many_would_go_astray_the_reasons_are_told(jobs, monkeypatch):
    asked = jobs[0][:2]
    monkeypatch.setattr(lane_run, "try_lanes", lambda lanes, runs, rows, sizes, is_timed: Trial((1,), 1.0, {2: 0.5}))
    report = run_lanes(LaneRequest(tuple(asked)))
    assert report.alone == (
        (asked[1].spec.key, "its gradient in lanes is not its own"),
        (asked[0].spec.key, "no other goes beside it"),
    )
    said = []
    LanesEngine(may_decline=False, say=said.append)._note(("head", "lora"), report)
    assert said == [
        "1 of 2 runs go alone: its gradient in lanes is not its own",
        "1 of 2 runs go alone: no other goes beside it",
    ]


@pytest.mark.parametrize(
    ("kind", "value", "cause"),
    [("killed", None, "killed"), ("error", "Traceback:\n  a line\nRuntimeError: boom\n", "RuntimeError: boom")],
)
def test_it_says_what_ended_lanes_early(jobs, monkeypatch, kind, value, cause):
    said = []
    engine = LanesEngine(may_decline=False, say=said.append)
    monkeypatch.setattr(engine, "_supervised", lambda *_: (kind, value))
    engine._run_group([_Ticket(jobs[0][0], ignore)])
    assert said == [f"lanes of {jobs[0][0].spec.contestant} ended early ({cause}); what is open of them is run alone"]


def test_a_group_of_an_engine_that_was_stopped_ends_without_a_traceback(jobs, monkeypatch):
    engine, loud, before = LanesEngine(may_decline=False, say=print), [], set(threading.enumerate())
    monkeypatch.setattr(threading, "excepthook", loud.append)
    tickets = [_Ticket(job, ignore) for job in jobs[0][:2]]
    engine._waiting = list(tickets)
    engine.stop()
    engine._take_turn(tickets[0])
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
    assert all(ticket.over.is_set() for ticket in tickets)
    assert loud == []


def test_the_peak_of_lanes_is_foretold_within_15_percent(both):
    peaks = {}
    for record in both[1].records():
        if lanes := record.environment.get("lanes"):  # what each says is the peak by its own end
            key = (record.spec.stage, record.spec.seed, lanes["predicted_memory_bytes"])
            peaks[key] = max(peaks.get(key, 0), lanes["peak_memory_bytes"])
    for (*_, predicted), peak in peaks.items():
        assert predicted == pytest.approx(peak, rel=0.15)


def test_settings_that_keep_a_run_from_being_a_lane(jobs):
    job = jobs[0][0]
    assert why_no_lane(job) is None
    assert "trained again" in why_no_lane(dataclasses.replace(job, restore=True))
    for key, value, why in (
        ("precision", "fp16", "fp16"),
        ("gradient_checkpointing", True, "gradient checkpointing"),
        ("feature_extraction", True, "feature extraction"),
    ):
        spec = dataclasses.replace(job.spec, training={**job.spec.training, key: value})
        assert why in why_no_lane(dataclasses.replace(job, spec=spec))


def test_a_run_whose_settings_keep_it_alone_says_so_once(jobs, monkeypatch):
    said = []
    engine = LanesEngine(may_decline=False, say=said.append)
    monkeypatch.setattr("deltaproof.experiments.engines.local.LocalEngine.run", lambda *_: None)
    for _ in range(2):
        engine.run(dataclasses.replace(jobs[0][0], restore=True))
    assert said == [f"{jobs[0][0].spec.contestant} goes alone: it is trained again, for the bits that it had"]


def test_a_report_tells_how_many_went_in_one_pass():
    report = LaneReport((), n_lanes=4, side_by_side=2, gain=1.234)
    said = said_of(["head", "lora", "lora", "lora"], report)
    assert said == "a step in lanes is 1.23 times as fast as alone (1 of head, 3 of lora): 4 lanes, 2 in one pass"


def test_lanes_take_no_address():
    with pytest.raises(ConfigError, match="`address` goes with an engine on a cluster"):
        deltaproof.compare(model="x", data="y", methods="lora", engine="lanes", address="ray://here")


class Waiting:
    """A ticket of the engine, as far as groups are made of it."""

    def __init__(self, job):
        self.job, self.is_taken = job, False


def test_waiting_runs_are_shared_out_over_the_free_slots(jobs):
    engine = LanesEngine(may_decline=False, say=lambda text: None)
    engine.open_slots(2)
    tickets = [Waiting(job) for job in jobs[0]]
    assert len(tickets) == 6
    engine._waiting = list(tickets)
    first = engine._group_of(tickets[4])
    assert len(first) == 3
    assert tickets[4] in first
    engine._n_busy = 1
    rest = [ticket for ticket in tickets if not ticket.is_taken]
    assert sorted(map(id, engine._group_of(rest[0]))) == sorted(map(id, rest))
    assert engine._group_of(rest[0]) == []


def test_where_memory_holds_fewer_lanes_the_others_wait_for_a_place(jobs, monkeypatch):
    monkeypatch.setattr("deltaproof.experiments.engines.lanes.n_fitting", lambda jobs, memory_bytes: 2)
    engine, asked = LanesEngine(may_decline=False, say=lambda text: None), []
    monkeypatch.setattr(engine, "_supervised", lambda errand, request, told: asked.append(request) or ("killed", None))
    tickets = [Waiting(job) for job in jobs[0]]
    engine._waiting = list(tickets)
    group = engine._group_of(tickets[-1])
    assert group[0] is tickets[-1]
    assert len(group) == len(tickets)
    engine._run_group(group)
    assert asked[0].places == 2


@pytest.mark.parametrize("n_held", [1, 3])
def test_a_group_is_as_large_as_two_of_it_can_train_at_a_time(jobs, monkeypatch, n_held):
    monkeypatch.setattr(
        "deltaproof.experiments.engines.lanes.n_fitting", lambda jobs, memory_bytes: 2 if len(jobs) <= n_held else 1
    )
    engine = LanesEngine(may_decline=False, say=lambda text: None)
    engine._waiting = [Waiting(job) for job in jobs[0]]
    assert len(engine._group_of(engine._waiting[0])) == n_held


def test_runs_of_one_seed_stay_together_and_others_fill_up(jobs):
    engine = LanesEngine(may_decline=False, say=lambda text: None)
    engine.open_slots(2)
    specs = [dataclasses.replace(job.spec, seed=seed) for seed in (2, 1, 0) for job in jobs[0][:4]]
    engine._waiting = [Waiting(dataclasses.replace(jobs[0][0], spec=spec)) for spec in specs]
    first = engine._group_of(next(ticket for ticket in engine._waiting if ticket.job.spec.seed == 0))
    assert [ticket.job.spec.seed for ticket in first] == [0, 0, 0, 0, 1, 1]
    assert sorted(ticket.job.spec.seed for ticket in engine._waiting) == [1, 1, 2, 2, 2, 2]


def test_a_run_enters_where_another_has_ended_and_goes_as_alone(jobs, monkeypatch):
    """Two places: after a kill one run goes on from its third step, and ends before the other, which begins anew."""
    monkeypatch.setattr("deltaproof.experiments.run.Checkpoint", lambda folder: Checkpoint(folder, every_seconds=0))
    (asked, wanted), steps = jobs, []
    asked = asked[:3]

    def killed(key, step, n_steps, values):
        if step == 4:
            raise KeyboardInterrupt

    request = LaneRequest(tuple(asked), side_by_side=2, places=2)
    with pytest.raises(KeyboardInterrupt):
        run_lanes(request, killed)
    keys = [job.spec.key for job in asked]
    store = Store(asked[0].folder)
    assert not (store.folder / "checkpoints" / keys[2]).exists(), "it waits"
    shutil.rmtree(store.folder / "checkpoints" / keys[0])
    report = run_lanes(request, lambda key, step, n_steps, values: steps.append((keys.index(key), step)))
    assert report.alone == ()
    assert report.n_lanes == 3
    begun = steps.index((2, 1))
    assert max(step for at, step in steps[:begun] if at == 1) == max(step for _, step in steps), "one has ended"
    assert 0 < max(step for at, step in steps[:begun] if at == 0) < max(step for _, step in steps), "one goes on"
    for key in keys:
        assert_alike(store.find(key), wanted[key])


def test_a_run_that_goes_astray_beside_others_does_not_enter(jobs, monkeypatch):
    asked, wanted = jobs[0][:4], jobs[1]
    tried, real = [], lane_run.try_lanes

    def strays(lanes, runs, rows, sizes, is_timed):
        tried.append(len(runs))
        found = real(lanes, runs, rows, sizes, is_timed)
        return found if len(tried) == 1 else dataclasses.replace(found, strays=(1,))

    monkeypatch.setattr(lane_run, "try_lanes", strays)
    report = run_lanes(LaneRequest(tuple(asked), side_by_side=2, places=3))
    assert tried == [3, 2], "the fourth beside one that goes before it"
    assert report.alone == ((asked[3].spec.key, lane_run.ASTRAY),)
    assert report.n_lanes == 3
    store = Store(asked[0].folder)
    assert store.find(asked[3].spec.key) is None
    for job in asked[:3]:
        assert_alike(store.find(job.spec.key), wanted[job.spec.key])


def test_final_runs_of_several_seeds_go_side_by_side(both):
    finals = [record for record in both[1].records() if record.spec.stage == "final"]
    seeds = {tuple(lanes["seeds"]) for record in finals if (lanes := record.environment.get("lanes"))}
    assert seeds == {(0, 1)}
