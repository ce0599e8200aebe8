"""What ``fedpkg`` says without a command: what can be done next in this folder."""

from __future__ import annotations

from pathlib import Path

from fedpkg.cli import output
from fedpkg.cli.completing import PACKAGES_HERE, is_package
from fedpkg.cli.options import Settings
from fedpkg.errors import FedpkgError

RUN_YAML, EXPERIMENT_YAML = Path("run.yaml"), Path("experiment.yaml")


def next_steps(settings: Settings) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What is here, as facts, and commands with what each does; nothing without a run.yaml, experiment or package."""
    from fedpkg.compute_package.app import APP_FILE
    from fedpkg.compute_package.spec import spec_path

    facts: list[tuple[str, str]] = []
    steps: list[tuple[str, str]] = []
    has_run, package = RUN_YAML.is_file(), next(filter(is_package, PACKAGES_HERE), None)
    has_experiment = EXPERIMENT_YAML.is_file()
    if not has_run and not has_experiment and package is None:
        return facts, steps
    if has_experiment:
        _of_experiment(settings, facts, steps)
    if has_run:
        _of_run(settings, facts, steps)
    if settings.home_path.is_dir():
        _of_newest_session(settings, facts, steps)
    if package is not None:
        is_app = spec_path(package).name == APP_FILE
        facts.append(("message app" if is_app else "package", "this folder" if package == Path() else str(package)))
        if is_app:
            steps.append((settings.command(f"run {package}"), "run the message app"))
            steps.append((f"fedpkg config show {package}", "every key, its value, and its origin"))
        steps.append((f"fedpkg package inspect {package}", "what the package holds and offers"))
        if not has_run and not has_experiment and not is_app:
            steps.append(("fedpkg init", "write a run.yaml for the package"))
    steps.append(("fedpkg --help", "all commands"))
    return facts, steps


def _of_experiment(settings: Settings, facts: list[tuple[str, str]], steps: list[tuple[str, str]]) -> None:
    from fedpkg.experiments.folders import ExperimentFolder

    try:
        groups = ExperimentFolder(".").groups
    except FedpkgError as error:
        facts.append((EXPERIMENT_YAML.name, error.message))
        return
    facts.append((EXPERIMENT_YAML.name, f"an experiment with the groups {', '.join(groups) or 'none'}"))
    steps.append((settings.command("experiment run ."), "run the default options once"))
    steps.append(("fedpkg config show .", "every key, its value, and the file that sets it"))


def _of_run(settings: Settings, facts: list[tuple[str, str]], steps: list[tuple[str, str]]) -> None:
    from fedpkg.session.configuration import load

    try:
        config = load(RUN_YAML).config
    except FedpkgError as error:
        facts.append(("run.yaml", error.message))
        steps.append(("fedpkg config show run.yaml", "check the run.yaml again after the correction"))
        return
    rounds = config.rounds or "any number of"
    facts.append(("run.yaml", f"{rounds} rounds of the package {output.near(config.package)}"))
    steps.append((settings.command("run run.yaml"), "run this federation"))
    steps.append(("fedpkg config show run.yaml", "every key, its value, and its origin"))


def _of_newest_session(settings: Settings, facts: list[tuple[str, str]], steps: list[tuple[str, str]]) -> None:
    from fedpkg.session.record import running_sessions, status_of

    try:
        with settings.reading() as (home, store):
            session = next(iter(store.list_sessions(newest_first=True, limit=1)), None)
            running = running_sessions(home)
    except FedpkgError as error:
        facts.append(("home", error.message))
        return
    if session is None:
        return
    status = status_of(session, running)
    facts.append(("newest session", f"{session.session_id}, {status}"))
    steps.append((settings.command("session show"), "rounds, failures and configuration of the newest session"))
    if status == "running":
        steps.append((settings.command("session stop"), "stop the newest session; it can be resumed"))
    elif status != "finished":
        steps.append((settings.command("session resume"), "continue the newest session"))
    else:
        steps.append(
            (
                settings.command(f"model export latest -o {session.name}.npz"),
                "write the newest session's model to a file",
            )
        )


def show(settings: Settings) -> bool:
    """Print the next steps; whether there are any. With --json, an empty list is printed, too."""
    facts, steps = next_steps(settings)
    if settings.json:
        output.document({"found": dict(facts), "next": [{"command": one, "purpose": why} for one, why in steps]})
    elif steps:
        output.facts(facts)
        output.result("\nNext:")
        output.suggestions(steps)
    return bool(steps) or settings.json
