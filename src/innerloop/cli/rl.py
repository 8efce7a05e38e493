"""``innerloop rl``: trains, transfers, meta-trains, adapts and compares scaling policies for Kubernetes."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from innerloop.cli.train import add_settings

if TYPE_CHECKING:
    from innerloop.core.trainer import TrainingResult

SPLITS = ("train", "validation", "test")


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the group's parser."""
    parser = groups.add_parser("rl", help="scaling policies for Kubernetes that adapt to a new cluster")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, summary, run in (
        ("train", "train a policy by PPO", run_train),
        ("transfer", "train a source policy on another task family", run_transfer),
        ("meta-train", "meta-train a policy over many clusters", run_meta_train),
    ):
        train = verbs.add_parser(
            verb,
            help=summary,
            description=f"{summary.capitalize()}. Run it again to go on from the last checkpoint.",
        )
        if verb != "train":
            train.add_argument(
                "--source",
                required=verb == "transfer",
                type=Path,
                metavar="P",
                help="run or checkpoint of the policy to begin with",
            )
        add_settings(train)
        train.set_defaults(run=run)
    adapt = verbs.add_parser(
        "adapt",
        help="adapt a policy to one cluster of its family",
        description="Adapts a policy to a held-out cluster, shows its return before and after, saves it.",
    )
    adapt.add_argument("--model-path", required=True, type=Path, metavar="P", help="run or checkpoint")
    adapt.add_argument("--output-dir", required=True, type=Path, metavar="O", help="for the adapted policy")
    adapt.add_argument("--cluster", type=int, default=0, metavar="N", help="of the split (default: 0)")
    adapt.add_argument("--split", choices=SPLITS, default="test")
    adapt.add_argument("--episodes", type=int, default=10, metavar="E", help="to adapt on (default: 10)")
    adapt.add_argument("--seed", type=int, default=0, help="of the episodes")
    adapt.set_defaults(run=run_adapt)
    live = verbs.add_parser(
        "run",
        help="let a policy scale deployments of a real cluster",
        description="Scales the named deployments, and nothing else, through /scale for one episode. Puts "
        "the replicas back at the end unless --keep is given.",
    )
    live.add_argument("--model-path", required=True, type=Path, metavar="P", help="run or checkpoint")
    live.add_argument("--output-dir", required=True, type=Path, metavar="O", help="for course.jsonl")
    live.add_argument("--namespace", required=True, metavar="NS")
    live.add_argument("--deployments", required=True, nargs="+", metavar="NAME")
    live.add_argument("--kubeconfig", type=Path, metavar="FILE", help="default: KUBECONFIG, or the pod's own")
    live.add_argument("--context", metavar="NAME", help="of the kubeconfig")
    live.add_argument("--node-selector", default="", metavar="LABELS", help="of the nodes to look at")
    live.add_argument("--prometheus", metavar="URL", help="default: the metrics server, for CPU and memory")
    live.add_argument("--queries", choices=("istio", "nginx"), default="istio", help="of Prometheus")
    live.add_argument("--steps", type=int, default=40, metavar="N", help="control steps (default: 40)")
    live.add_argument("--interval", type=float, default=15.0, metavar="S", help="seconds between them")
    live.add_argument("--replicas", nargs=2, type=int, default=(1, 8), metavar=("LEAST", "MOST"))
    live.add_argument("--dry-run", action="store_true", help="have the server check changes and make none")
    live.add_argument("--keep", action="store_true", help="leave the replicas as they are at the end")
    live.set_defaults(run=run_live)
    evaluate = verbs.add_parser(
        "evaluate",
        help="compare policies with each other and with the baselines",
        description="Adapts every policy to held-out clusters and measures it on the way, beside training "
        "from scratch, Kubernetes' own autoscaler and others. Writes evaluation.json and report.html.",
    )
    evaluate.add_argument(
        "--model", nargs="+", required=True, metavar="NAME=PATH", help="policies and their names"
    )
    evaluate.add_argument("--output-dir", required=True, type=Path, metavar="O")
    evaluate.add_argument("--split", choices=SPLITS, default="test")
    evaluate.add_argument(
        "--set", nargs="+", default=[], metavar="key=value", dest="overrides", help="test.* settings"
    )
    evaluate.set_defaults(run=run_evaluate)
    report = verbs.add_parser(
        "report",
        help="the table and the page of an evaluation",
        description="Prints and draws a record again.",
    )
    report.add_argument("folder", type=Path, metavar="FOLDER", help="that holds evaluation.json")
    report.set_defaults(run=run_report)


def run_train(options: argparse.Namespace) -> None:
    """Trains by PPO."""
    from innerloop.rl.config import load_config
    from innerloop.rl.ppo_run import train

    _told(train(load_config(options.config_name, options.config_path, options.overrides)))


def run_transfer(options: argparse.Namespace) -> None:
    """Trains a source policy further."""
    from innerloop.rl.config import load_config
    from innerloop.rl.ppo_run import transfer

    config = load_config(options.config_name, options.config_path, options.overrides)
    _told(transfer(config, options.source))


def run_meta_train(options: argparse.Namespace) -> None:
    """Meta-trains."""
    from innerloop.rl.config import load_config
    from innerloop.rl.meta import meta_train

    config = load_config(options.config_name, options.config_path, options.overrides)
    _told(meta_train(config, options.source))


def run_adapt(options: argparse.Namespace) -> None:
    """Adapts to one cluster, and saves the adapted policy."""
    from innerloop.rl.adapted import adapt_to_one

    result = adapt_to_one(
        options.model_path, options.output_dir, options.split, options.cluster, options.episodes, options.seed
    )
    print(
        f"cluster:    {result.cluster}\n"
        f"return:     {result.before:.2f} before, {result.after:.2f} after {options.episodes} episodes\n"
        f"violations: {100 * result.violations_before:.1f} % before, "
        f"{100 * result.violations_after:.1f} % after\n"
        f"policy:     {result.folder}"
    )


def run_live(options: argparse.Namespace) -> None:
    """Scales a real cluster, and tells every step."""
    from innerloop.rl.artifacts import load_artifact
    from innerloop.rl.kubernetes import ClusterSettings, PrometheusMetrics, ResourceMetrics
    from innerloop.rl.kubernetes.api import KubernetesApi
    from innerloop.rl.kubernetes.queries import ISTIO, NGINX
    from innerloop.rl.live import Step, run_on_cluster, write_course

    def tell(step: Step) -> None:
        pods = "  ".join(f"{name} {step.ready[name]}/{asked}" for name, asked in step.deployments.items())
        words = f"latency {step.latency:.3f} s  reward {step.reward:.2f}"
        print(f"step {step.number}/{options.steps}  {pods}  {words}", file=sys.stderr, flush=True)

    settings = ClusterSettings(
        options.namespace,
        tuple(options.deployments),
        options.kubeconfig,
        options.context,
        options.node_selector,
        dry_run=options.dry_run,
        restore=not options.keep,
        min_replicas=options.replicas[0],
        max_replicas=options.replicas[1],
        steps=options.steps,
        interval=options.interval,
    )
    metrics = (
        PrometheusMetrics(options.prometheus, {"istio": ISTIO, "nginx": NGINX}[options.queries])
        if options.prometheus
        else ResourceMetrics(KubernetesApi(settings))
    )
    course = run_on_cluster(load_artifact(options.model_path), settings, metrics, tell)
    for failed in course.failed:
        print(f"step {failed.step} failed: {failed.message}")
    print(f"return: {course.total:.2f}\ncourse: {write_course(options.output_dir, course)}")


def run_evaluate(options: argparse.Namespace) -> None:
    """Measures, and writes the record and its page."""
    from innerloop.cli.progress import cell_progress
    from innerloop.rl.evaluate import evaluate
    from innerloop.rl.models import named_models, test_settings

    models = named_models(options.model)
    command = shlex.join(["innerloop", *sys.argv[1:]])
    with cell_progress("adaptations") as progress:
        evaluate(
            models,
            test_settings(models, options.overrides),
            options.split,
            command,
            options.output_dir,
            lambda name, done, total: progress(done, total, name),
        )
    _show(options.output_dir)


def run_report(options: argparse.Namespace) -> None:
    """Prints and draws a record."""
    _show(options.folder)


def _show(folder: Path) -> None:
    from innerloop.core.files import write_whole
    from innerloop.rl.page import html_text
    from innerloop.rl.records import RECORD_FILE, read_evaluation
    from innerloop.rl.table import markdown

    evaluation = read_evaluation(folder)
    page = folder / "report.html"
    write_whole(page, html_text(evaluation))
    print(f"{markdown(evaluation)}\nrecord: {folder / RECORD_FILE}\nreport: {page}")


def _told(result: "TrainingResult") -> None:
    print(f"checkpoint: {result.checkpoint}\nmetrics:    {result.metrics}")
