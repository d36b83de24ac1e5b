"""A filter for playbooks that make secrets: they are written encrypted, and never otherwise."""

from ansible.errors import AnsibleFilterError
from ansible.parsing.vault import VaultLib, VaultSecretsContext, match_encrypt_secret

DOCUMENTATION = """
name: vaulted
author: The edge project
version_added: 0.1.0
short_description: A text as a vault has it
description:
  - The text, encrypted as C(ansible-vault encrypt) does it, with the password that this run was given.
options:
  _input:
    description: The text.
    type: str
    required: true
"""

EXAMPLES = """
- name: Write a secret
  ansible.builtin.copy:
    content: "{{ secret | edge.server.vaulted }}"
    dest: secret.vault
    mode: "0600"
  no_log: true
"""

RETURN = """
_value:
  description: A file's content, for whoever has the password.
  type: str
"""


class FilterModule:
    """What Ansible looks for."""

    def filters(self):
        return {"vaulted": vaulted}


def vaulted(text):
    """Raises AnsibleFilterError if the run was given no password."""
    context = VaultSecretsContext.current(optional=True)
    if context is None or not context.secrets:
        raise AnsibleFilterError(
            "vaulted: this run was given no password of a vault; say --ask-vault-pass or --vault-password-file"
        )
    identity, secret = match_encrypt_secret(context.secrets)
    label = None if identity == "default" else identity
    return VaultLib(context.secrets).encrypt(text, secret, vault_id=label).decode()
