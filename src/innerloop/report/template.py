"""The templates of pages that ask nothing of the network: ``frame.html`` around them, style and all."""

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def page_environment(folder: str = "report") -> Environment:
    """Finds templates in a folder of the package, and the frame they extend in this one."""
    return Environment(
        loader=ChoiceLoader([PackageLoader("innerloop", name) for name in dict.fromkeys((folder, "report"))]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
