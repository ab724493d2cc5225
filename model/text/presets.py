"""Chat templates of families whose folders have none, as those who trained them published them.

A folder's own template comes first; then the preset that the folder's name asks for, and
`TRANSCRIPT` for any other name. `docs/models.md` shows what each writes.
"""

import re

# A base BLOOM only continues text, so a chat is written as a transcript.
TRANSCRIPT = (
    "{% for message in messages %}"
    "{{ 'Assistant: ' if message.role == 'assistant' else 'User: ' }}{{ message.content }}\n"
    "{% endfor %}Assistant:"
)
# A BLOOMZ was trained to follow an instruction, without any markers around it: the model cards of
# bigscience/bloomz-* ("Translate to English: Je t'aime.").
_INSTRUCTION = (
    "{% for message in messages %}{{ message.content }}{{ '' if loop.last else '\n' }}{% endfor %}"
)
# The model cards of BelleGroup/BELLE-7B-*: "Human: {input} \n\nAssistant:", which their code writes
# without the space. They show one turn only; more are written one after the other.
_BELLE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}{{ 'Assistant: ' + message.content + '\n\n' }}"
    "{% elif message.role == 'system' %}{{ message.content + '\n\n' }}"
    "{% else %}{{ 'Human: ' + message.content + '\n\n' }}{% endif %}"
    "{% endfor %}Assistant:"
)
# `Conversation.get_prompt` in llmzoo/utils.py of FreedomIntelligence/LLMZoo, for phoenix-*.
_PHOENIX = (
    "{% if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% else %}"
    "{{ 'A chat between a curious human and an artificial intelligence assistant. The assistant"
    " gives helpful, detailed, and polite answers to the human\\'s questions.\n\n' }}{% endif %}"
    "{% for message in messages %}{% if message.role != 'system' %}"
    "{{ 'Assistant' if message.role == 'assistant' else 'Human' }}: <s>{{ message.content }}</s>"
    "{% endif %}{% endfor %}Assistant: <s>"
)
# `tok_ins` and `tok_res` in gptq/tigerbot_infer.py of TigerResearch/TigerBot, for tigerbot-7b-sft.
_TIGERBOT = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}{% else %}"
    "{{ '\n\n### Response:\n' if message.role == 'assistant' else '\n\n### Instruction:\n' }}"
    "{{ message.content }}{% endif %}{% endfor %}{{ '\n\n### Response:\n' }}"
)
# tatsu-lab/stanford_alpaca, of which many fine-tunes of BLOOM take the data and the prompt. It has
# one turn only; more are written one after the other.
_ALPACA = (
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% else %}"
    "Below is an instruction that describes a task. Write a response that appropriately completes"
    " the request.{% endif %}"
    "{% for message in messages %}{% if message.role != 'system' %}"
    "{{ '\n\n### Response:' if message.role == 'assistant' else '\n\n### Instruction:\n' }}"
    "{{ message.content }}{% endif %}{% endfor %}{{ '\n\n### Response:' }}"
)
# The model cards of cmarkea/bloomz-*-sft-chat: "</s>[human prompt]<s>[bot answer]</s>".
_SFT_CHAT = (
    "{% for message in messages %}"
    "{{ '<s>' if message.role == 'assistant' else '</s>' }}{{ message.content }}"
    "{% endfor %}<s>"
)
# YeungNLP's Firefly, for firefly-1b4 and firefly-2b6: "<s>{}</s></s>", and "{}</s>" for an answer.
_FIREFLY = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}{{ message.content }}</s>"
    "{% else %}<s>{{ message.content }}</s></s>{% endif %}"
    "{% endfor %}"
)
# The model cards of Azure99/blossom-*.
_BLOSSOM = (
    "{% if messages[0].role == 'system' %}{{ messages[0].content + '\n' }}{% else %}"
    "{{ 'A chat between a human and an artificial intelligence bot. The bot gives helpful,"
    " detailed, and polite answers to the human\\'s questions.\n' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}{{ '|Bot|: ' + message.content + '</s>\n' }}"
    "{% elif message.role != 'system' %}{{ '|Human|: ' + message.content + '\n' }}{% endif %}"
    "{% endfor %}|Bot|: "
)
PRESETS = {
    "transcript": TRANSCRIPT,
    "instruction": _INSTRUCTION,
    "belle": _BELLE,
    "phoenix": _PHOENIX,
    "tigerbot": _TIGERBOT,
    "alpaca": _ALPACA,
    "sft-chat": _SFT_CHAT,
    "firefly": _FIREFLY,
    "blossom": _BLOSSOM,
}

# The first pattern that fits a folder's name, in small letters.
_OF_NAMES = (
    (r"belle-7b-", "belle"),
    (r"phoenix-", "phoenix"),
    (r"tigerbot-(?!.*base)", "tigerbot"),
    (r"firefly-", "firefly"),
    (r"blossom-", "blossom"),
    (r"bloomz.*-sft-chat", "sft-chat"),
    (r".*alpaca", "alpaca"),
    (r"bloomz", "instruction"),
)


def preset_of(name: str) -> str:
    """Return the name of the preset that suits a folder of this name."""
    fitting = (preset for pattern, preset in _OF_NAMES if re.match(pattern, name.lower()))
    return next(fitting, "transcript")
