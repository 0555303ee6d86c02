"""Conversations as one text. Pure: no Django, no database."""

from labeling.preferences.views_out.columns import Row

SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}
HH_SPEAKERS = {"user": "Human", "assistant": "Assistant"}
HH_MARKERS = ("\n\nHuman:", "\n\nAssistant:")


def standard_prompt(messages: list[Row]) -> str:
    """The prompt of TRL's standard form: the text of a single question as it is, and else a transcript.

        System: ...

        User: ...

        Assistant: ...

        User: ...

        Assistant:

    A completion follows after one space, in both.
    """
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    turns = [f"{SPEAKERS[message['role']]}: {message['content']}" for message in messages]
    return "\n\n".join([*turns, "Assistant:"])


def standard_completion(messages: list[Row]) -> str:
    return " " + "\n\n".join(message["content"] for message in messages)


def hh_transcript(messages: list[Row]) -> str:
    """As hh-rlhf writes conversations: "\\n\\nHuman: ...\\n\\nAssistant: ...".

    There is no system prompt there, so it opens the first turn of the human. A marker inside a text would be read as
    a turn that nobody spoke: a space keeps it apart.
    """
    system = [message["content"] for message in messages if message["role"] == "system"]
    spoken = [message for message in messages if message["role"] != "system"]
    if system and (not spoken or spoken[0]["role"] != "user"):
        spoken = [{"role": "user", "content": ""}, *spoken]
    parts = []
    for number, message in enumerate(spoken):
        text = "\n\n".join([*system, message["content"]]).strip("\n") if number == 0 else message["content"]
        for marker in HH_MARKERS:
            text = text.replace(marker, "\n\n " + marker[2:])
        parts.append(f"\n\n{HH_SPEAKERS[message['role']]}: {text}")
    return "".join(parts)
