"""Files and directories between this machine and a sandbox: whole or not at all, and never outside of the target.

There is one design for both directions. What stands in the way is found before anything is written. Then everything is
written under a temporary name in the nearest directory that exists, its checksum is compared, and it is renamed. A
directory is transferred as one tar archive, which keeps modes, links and empty directories. What the sandbox has
already, by content, is not sent again. What comes out of a sandbox is not trusted: an archive with an entry that would
end outside of the target, or with a device, is refused as a whole. Devices, pipes and sockets have no content: they
are left out, and reported by their names.
"""

from ags_flows.transfer.downloads import download_directory, download_matching
from ags_flows.transfer.exclusion import Exclude, Links, check_exclude, check_links
from ags_flows.transfer.files import download_file, read_file, upload_file, write_file
from ags_flows.transfer.local_state import local_state
from ags_flows.transfer.paths import has_magic, is_own
from ags_flows.transfer.removal import must_not_be_home, remove_path
from ags_flows.transfer.stream import Progress
from ags_flows.transfer.uploads import upload_directory

__all__ = [
    "Exclude",
    "Links",
    "Progress",
    "check_exclude",
    "check_links",
    "download_directory",
    "download_file",
    "download_matching",
    "has_magic",
    "is_own",
    "local_state",
    "must_not_be_home",
    "read_file",
    "remove_path",
    "upload_directory",
    "upload_file",
    "write_file",
]
