"""``innerloop models``: fetches the embedded default model and shows what is cached."""

import argparse


def register(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = groups.add_parser("models", help="get the embedded default model, and see what is cached")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    get = verbs.add_parser("get", help="fetch and convert an embedded model, once")
    get.add_argument("name", metavar="NAME", help="the model's name: smollm2-135m")
    get.set_defaults(run=run_get)
    show = verbs.add_parser("list", help="show the models on this machine")
    show.set_defaults(run=run_list)


def run_get(options: argparse.Namespace) -> None:
    """Makes a model ready and says where it is."""
    from rich.console import Console

    from innerloop.llm.model_list import get_model

    with Console(stderr=True).status(f"Getting {options.name} (a minute, only once)"):
        folder = get_model(options.name)
    print(f"{options.name} is ready in {folder}")


def run_list(_options: argparse.Namespace) -> None:
    """Prints the table of models."""
    from rich.console import Console

    from innerloop.llm.model_list import list_models, model_table

    Console().print(model_table(list_models()))
