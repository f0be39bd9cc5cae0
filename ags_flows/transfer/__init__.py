"""Files and directories between this machine and a sandbox: whole or not at all, and never outside of the target.

What is sent is written beside its destination, its checksum is compared, and it is renamed. A directory travels as one
tar archive, which keeps modes, links and empty directories. What the sandbox has already, by content, is not sent
again. What comes out of a sandbox is not trusted: an archive with an entry that would end outside of the target, or
with a device, is refused as a whole.
"""

from ags_flows.transfer.directories import download_directory, download_matching, upload_directory
from ags_flows.transfer.files import download_file, read_file, upload_file
from ags_flows.transfer.paths import has_magic
from ags_flows.transfer.stream import Progress

__all__ = [
    "Progress",
    "download_directory",
    "download_file",
    "download_matching",
    "has_magic",
    "read_file",
    "upload_directory",
    "upload_file",
]
