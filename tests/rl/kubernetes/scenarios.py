"""Two small scenarios for real control planes."""

from innerloop.rl.simulator import Application, Load, Node, Scenario

WEB = Application(cpu_request=250, memory_request=256, request_cpu=10, startup=20, replicas=2, max_replicas=8)
API = Application(cpu_request=200, memory_request=512, request_cpu=8, startup=5, replicas=1, max_replicas=8)


def one_node() -> Scenario:
    """A node with room for eight pods or less: where every pod goes is certain."""
    return Scenario(
        name="one-node",
        nodes=(Node(cpu=2000, memory=4096),),
        applications=(WEB, API),
        loads=(Load("diurnal", rate=60, amplitude=0.8, period=150), Load("flat", rate=30)),
        round_trip=((0.01,),),
        steps=8,
    )


def three_nodes() -> Scenario:
    """Nodes of one size and two regions."""
    return Scenario(
        name="three-nodes",
        nodes=(Node(cpu=1000, memory=2048),) * 3,
        applications=(WEB, API),
        loads=(
            Load("step", rate=40, amplitude=2.0, phase=0.4, shares=(0.7, 0.3)),
            Load("flat", rate=30, shares=(0.5, 0.5)),
        ),
        round_trip=((0.01, 0.02, 0.03), (0.03, 0.01, 0.02)),
        steps=8,
    )
