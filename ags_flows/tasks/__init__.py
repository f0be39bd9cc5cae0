"""Retryable Prefect tasks, one a step: validate, call, log, return a value.

All are synchronous. An async flow awaits `task.aio(...)`. Outside of Prefect, `task.fn(...)` is the plain function.
"""

from ags_flows.tasks.cleanup import cleanup
from ags_flows.tasks.code import (
    create_code_context,
    list_code_contexts,
    remove_code_context,
    restart_code_context,
    run_code,
)
from ags_flows.tasks.commands import exec_command, kill_command, start_command, wait_command
from ags_flows.tasks.files import (
    download_directory,
    download_file,
    download_files,
    list_files,
    read_file,
    remove_path,
    upload_directory,
    upload_file,
    write_file,
)
from ags_flows.tasks.images import delete_precached_image, list_precached_images, precache_image
from ags_flows.tasks.instances import (
    acquire_token,
    extend_instance,
    get_instance,
    get_instance_url,
    list_instances,
    pause_instance,
    resume_instance,
    start_instance,
    stop_instance,
    wait_instance_running,
)
from ags_flows.tasks.quotas import get_quotas
from ags_flows.tasks.snapshots import create_snapshot, delete_snapshot, list_snapshots
from ags_flows.tasks.tools import (
    create_tool,
    delete_tool,
    ensure_tool,
    get_tool,
    list_tools,
    update_tool,
    wait_tool_active,
)

__all__ = [
    "acquire_token",
    "cleanup",
    "create_code_context",
    "create_snapshot",
    "create_tool",
    "delete_precached_image",
    "delete_snapshot",
    "delete_tool",
    "download_directory",
    "download_file",
    "download_files",
    "ensure_tool",
    "exec_command",
    "extend_instance",
    "get_instance",
    "get_instance_url",
    "get_quotas",
    "get_tool",
    "kill_command",
    "list_code_contexts",
    "list_files",
    "list_instances",
    "list_precached_images",
    "list_snapshots",
    "list_tools",
    "pause_instance",
    "precache_image",
    "read_file",
    "remove_code_context",
    "remove_path",
    "restart_code_context",
    "resume_instance",
    "run_code",
    "start_command",
    "start_instance",
    "stop_instance",
    "update_tool",
    "upload_directory",
    "upload_file",
    "wait_command",
    "wait_instance_running",
    "wait_tool_active",
    "write_file",
]
