"""rosbridge, for this machine alone, and a Fallow node that reads the robot through it.

ros2 launch fallow.launch.py config:=/etc/fallow/node.toml
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

TOPICS = "[/battery_state, /is_docked]"
"""What the node subscribes to, by the names in its settings; rosbridge shows nobody anything else."""
STOP_S = "15"
"""From the wish to end to a kill: a node that leaves hands back its jobs within two seconds."""


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` starts."""
    rosbridge = Node(
        package="rosbridge_server",
        executable="rosbridge_websocket",
        parameters=[
            {"address": "127.0.0.1", "port": 9090, "topics_glob": TOPICS, "services_glob": "[]", "params_glob": "[]"}
        ],
    )
    fallow = ExecuteProcess(
        cmd=["fallow", "node", "run", "--config", LaunchConfiguration("config")],
        name="fallow",
        output="screen",
        respawn=True,
        respawn_delay=5.0,
        sigterm_timeout=STOP_S,
    )
    settings = DeclareLaunchArgument(
        "config", default_value="/etc/fallow/node.toml", description="The node's settings."
    )
    return LaunchDescription([settings, rosbridge, fallow])
