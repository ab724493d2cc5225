# ruff: noqa: E501 (templates are kept as their makers wrote them)
"""Chat templates as fine-tunes carry them, in the shapes that the hub's models have."""

from model.text.presets import PRESETS

SYSTEM_FIRST = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = none %}{% set turns = messages %}"
    "{% endif %}"
)
CHATML_TURNS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TEMPLATES = {f"preset {name}": source for name, source in PRESETS.items()} | {
    "chatml": CHATML_TURNS,
    "chatml with bos": "{{ bos_token }}" + CHATML_TURNS,
    "chatml with a default system": (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant."
        "<|im_end|>\n{% endif %}" + CHATML_TURNS
    ),
    "qwen2": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content']}}"
        "{% if (loop.last and add_generation_prompt) or not loop.last %}{{ '<|im_end|>' + '\n'}}"
        "{% endif %}{% endfor %}{% if add_generation_prompt and messages[-1]['role'] !="
        " 'assistant' %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "qwen3": """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {{- tools | tojson }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not\
(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n')\
.split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' +\
 reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {{- tool_call.name }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    "llama-2": (
        SYSTEM_FIRST + "{% for message in turns %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception("
        "'Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if loop.index0 == 0 and system is not none %}"
        "{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}"
        "{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}"
        "{% endif %}{% endfor %}"
    ),
    "llama-3": (
        "{% set loop_messages = messages %}{% for message in loop_messages %}"
        "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+"
        " message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
        "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
        "{% endif %}"
    ),
    "llama-3.1": """\
{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+\
 message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "zephyr": (
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
        "{{ '<|user|>\n' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'system' %}\n"
        "{{ '<|system|>\n' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'assistant' %}\n"
        "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n"
        "{% endfor %}"
    ),
    "alpaca": (
        "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\n\n' }}{% else %}"
        "{{ 'Below is an instruction that describes a task. Write a response that appropriately"
        " completes the request.\n\n' }}{% endif %}{% for message in messages %}"
        "{% if message['role'] == 'user' %}{{ '### Instruction:\n' + message['content'] + '\n\n' }}"
        "{% elif message['role'] == 'assistant' %}{{ '### Response:\n' + message['content'] +"
        " '\n\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '### Response:\n' }}"
        "{% endif %}"
    ),
    "alpaca with eos": (
        "{{ bos_token }}{% for m in messages if m.role != 'system' %}"
        "{{ '### ' ~ ('Instruction' if m.role == 'user' else 'Response') ~ ':\n' ~ m.content }}"
        "{{ eos_token if m.role == 'assistant' else '' }}{{ '\n\n' }}{% endfor %}### Response:\n"
    ),
    "vicuna": (
        SYSTEM_FIRST + "{{ system if system is not none else 'A chat between a curious user and an"
        " artificial intelligence assistant.' }}{% for m in turns %}{% if m.role == 'user' %}"
        "{{ ' USER: ' + m.content }}{% else %}{{ ' ASSISTANT: ' + m.content + eos_token }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
    ),
    "vicuna without eos": (
        "{% for m in messages %}{{ m.role | upper }}: {{ m.content }} {% endfor %}ASSISTANT:"
    ),
    "mistral": (
        "{{ bos_token }}{% for message in messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception("
        "'Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
        "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}"
        "{% endfor %}"
    ),
    "phi-3": (
        "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' +"
        " message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' +"
        " message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
        "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception("
        "'Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}"
        "{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' +"
        " message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
    ),
    "deepseek": (
        "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}"
        "{% endif %}{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ 'User: ' + message['content'] + '\n\n' }}{% elif message['role'] == 'assistant' %}"
        "{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}"
        "{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    ),
    "openchat": (
        "{{ bos_token }}{% for message in messages %}{{ 'GPT4 Correct ' + message['role'].title()"
        " + ': ' + message['content'] + '<|end_of_turn|>'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'GPT4 Correct Assistant:' }}{% endif %}"
    ),
    "command-r": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages ="
        " messages[1:] %}{% set system_message = messages[0]['content'] %}{% elif false == true %}"
        "{% set loop_messages = messages %}{% set system_message = 'You are Command-R.' %}"
        "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
        "{% if system_message != false %}{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' +"
        " system_message + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% for message in loop_messages %}"
        "{% set content = message['content'] %}{% if message['role'] == 'user' %}"
        "{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}"
        "{% elif message['role'] == 'assistant' %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'  +"
        " content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
    ),
    "falcon": (
        "{% for message in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}"
        "{% if message['role'] == 'system' %}{{ 'System: ' }}{% elif message['role'] == 'user' %}"
        "{{ 'User: ' }}{% elif message['role'] == 'assistant' %}{{ 'Falcon: ' }}{% endif %}"
        "{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}{{ '\n' + 'Falcon:' }}"
        "{% endif %}"
    ),
    "a date": (
        "{{ bos_token }}Today is {{ strftime_now('%Y-%m-%d') }}.\n{% for m in messages %}"
        "<|{{ m.role }}|>{{ m.content }}</s>\n{% endfor %}<|assistant|>"
    ),
    "break": (
        "{% for m in messages %}{% if loop.index > 4 %}{% break %}{% endif %}"
        "{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    ),
    "continue": (
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    ),
    "generation": (
        "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{% generation %}"
        "{{ m.content }}{{ eos_token }}{% endgeneration %}{% else %}<|{{ m.role }}|>"
        "{{ m.content }}\n{% endif %}{% endfor %}<|assistant|>"
    ),
    "tojson": "{{ messages | tojson }}\n{% for m in messages %}{{ m | tojson(indent=2) }}{% endfor %}",
    "tojson with settings": (
        "{{ messages | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}"
    ),
    "tools and documents": (
        "{{ tools is none }} {{ tools is defined }} {{ documents is not none }}"
        "{% if tools is not none %}TOOLS{% endif %}{{ messages[0].content }}"
    ),
    "every token": (
        "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}|{{ pad_token }}|{{ sep_token }}|"
        "{{ mask_token is defined }}|{{ cls_token }}|{{ messages[-1].content }}"
    ),
    "macro": (
        "{% macro turn(role, text, end='<|end|>') %}<|{{ role }}|>\n{{ text | trim }}{{ end }}\n"
        "{% endmacro %}{% for m in messages %}{{ turn(m.role, m.content) }}{% endfor %}"
        "{{ turn('assistant', '', end='') }}"
    ),
    "call block": (
        "{% macro box(name) %}[{{ name }}]{{ caller() }}[/{{ name }}]\n{% endmacro %}"
        "{% for m in messages %}{% call box(m.role) %}{{ m.content }}{% endcall %}{% endfor %}[bot]"
    ),
    "set block": (
        "{% for m in messages %}{% set text %}{{ m.role }}> {{ m.content | trim }}{% endset %}"
        "{{ text }}\n{% endfor %}assistant>"
    ),
    "filters": (
        "{{ messages | map(attribute='role') | join(',') }}|{{ messages | selectattr('role',"
        " 'equalto', 'user') | list | length }}|{{ messages | map(attribute='content') | map('upper')"
        " | map('trim') | join('; ') }}|{{ (messages | first).content | replace('o', '0') | title }}"
        "|{{ messages | groupby('role') | length }}|{{ messages[0] | dictsort | first | last }}"
        "|{{ messages[0] | items | list | length }}|{{ messages[0].content | indent(2, true) }}"
        "|{{ [3, 1, 2] | sort | reverse | list }}|{{ [1, 1, 2] | unique | list }}|{{ [1, 2] | sum }}"
        "|{{ '%s-%05d' | format('a', 42) }}|{{ messages | rejectattr('role', 'in', ['system'])"
        " | list | count }}|{{ 'abc' | center(9) }}|{{ nothing | default('none given') }}"
    ),
    "methods": (
        "{{ 'a,b'.split(',') }}{{ '{} and {:>4}'.format('x', 7) }}{{ '%s' % 'y' }}"
        "{{ messages[0].get('nothing', 'fallback') }}{{ messages[0].items() | list | length }}"
        "{{ 'x'.join(['1', '2']) }}{{ 'ab'.center(6) }}{{ 'ab' * 3 }}{{ [1] * 2 + [3] }}{{ 7 // 2 }}"
        "{{ 2 ** 10 }}{{ 7 % 4 }}{{ 'a' in 'abc' }}{{ messages[0].content[::-1] }}{{ 1 < 2 < 3 }}"
        "{{ 'a' ~ 1 ~ none }}{{ dict(a=1) }}{{ range(3) | list }}{{ 'x'.encode is defined }}"
    ),
    "namespace": (
        "{% set ns = namespace(seen=0, text='') %}{% for m in messages %}{% set ns.seen = ns.seen +"
        " 1 %}{% set ns.text = ns.text ~ m.content %}{% endfor %}{{ ns.seen }} {{ ns.text }}"
    ),
    "recursive loop": (
        "{% for m in messages recursive %}{{ m.role if m.role is defined else m }}"
        "{% if m.content is defined %}({{ loop([m.content]) }}){% endif %}{% endfor %}"
    ),
    "loop variables": (
        "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.cycle('a', 'b') }}"
        "{{ loop.previtem.role if not loop.first }}{{ loop.nextitem.role if not loop.last }}{{ loop.changed(m.role) }}{{ m.content }}"
        "{% else %}nothing{% endfor %}"
    ),
    "white space": "  {% for m in messages %}\n  {% if true %}\n {{- m.content -}} \n  {% endif %}\n{% endfor %}\n\n",
    "comments": "{# a comment #}\n{% raw %}{{ raw }}{% endraw %}{{ messages[0].content }}\n",
    "aya": (
        "{{ bos_token }}{% for m in messages %}<|START|><|{{ m.role | upper }}|>{{ m.content }}"
        "<|END|>{% endfor %}<|START|><|CHATBOT|>"
    ),
    "bloom transcript": (
        "{% for message in messages %}{% if message.role == 'user' %}User: {{ message.content }}\n"
        "{% elif message.role == 'assistant' %}Assistant: {{ message.content }}{{ eos_token }}\n"
        "{% endif %}{% endfor %}Assistant:"
    ),
    "guanaco": (
        "{% for m in messages %}{{ '### Human: ' if m.role == 'user' else '### Assistant: ' }}"
        "{{ m.content }}{{ ' ' }}{% endfor %}### Assistant:"
    ),
    "xml": (
        "{% for m in messages %}<{{ m.role }}>{{ m.content | e }}</{{ m.role }}>\n{% endfor %}"
        "<assistant>"
    ),
}

USER = {"role": "user", "content": 'Hello & <b>"there"</b>, I\'m Zoë 🙂'}
ANSWER = {"role": "assistant", "content": "Hi!\nWhat can I do?"}
CHATS = {
    "one": [USER],
    "talk": [USER, ANSWER, {"role": "user", "content": "  Write a poem. \n"}],
    "system": [{"role": "system", "content": "Be brief.\nBe kind."}, USER],
    "long": [{"role": "system", "content": "Be kind"}, USER, ANSWER, USER, ANSWER, USER],
    "two users": [USER, USER],
    "thinking": [
        USER,
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."},
        {"role": "user", "content": ""},
    ],
    "unknown role": [{"role": "tool", "content": "42"}],
}
