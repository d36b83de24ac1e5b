"""What the files of policies are called on a host."""

import os
from pathlib import Path

from ansible.errors import AnsibleLookupError

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: delivered
author: The edge project
version_added: 0.1.0
short_description: What C(copy) calls files and directories of the controller, where it puts them
description:
  - Paths relative to the directory that files are put into, each file of a directory for itself. A directory's own name
    is a part of them, unless its path ends in a slash.
options:
  _terms:
    description: Files and directories, as C(copy) has them in O(ansible.builtin.copy#module:src).
    type: list
    elements: path
    required: true
"""

EXAMPLES = """
- name: Say what the policies are called
  ansible.builtin.debug:
    msg: "{{ query('edge.server.delivered', inventory_dir ~ '/policies/') }}"
"""

RETURN = """
_raw:
  description: The paths.
  type: list
  elements: str
"""


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **_):
        return [name for term in terms for name in self._names(term, variables)]

    def _names(self, term, variables):
        found = self.find_file_in_search_path(variables, "files", term, ignore_missing=True)
        if found is None:
            raise AnsibleLookupError(f"there is no file or directory {term}")
        here = Path(found)
        if not here.is_dir():
            return [here.name]
        own = Path() if term.endswith("/") else Path(here.name)
        walked = os.walk(here, followlinks=True)
        return sorted(str(own / Path(folder, name).relative_to(here)) for folder, _, names in walked for name in names)
