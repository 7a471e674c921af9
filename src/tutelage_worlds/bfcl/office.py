"""Wishes about files, tickets, messages, posts and numbers."""

from collections.abc import Mapping
from typing import Any, Final

from tutelage_worlds.bfcl.draw import pick, several, whole
from tutelage_worlds.bfcl.wish import PEOPLE, TOPICS, Desk, Wish, call, enumerated

FOLDERS: Final = ("letters", "plans", "notes", "drafts", "archive", "photos")
ENDINGS: Final = ("txt", "md", "csv")
LINES: Final = (
    "the {} opens at nine",
    "ask about the {}",
    "no news of the {}",
    "the {} was moved to friday",
    "more chairs for the {}",
    "who pays for the {}",
)


class Files(Desk):
    api = "GorillaFileSystem"
    kinds = (
        "make",
        "write",
        "find_line",
        "count",
        "order",
        "remove",
        "rename",
        "show",
        "new_folder",
    )

    def __init__(self, rng: Any) -> None:
        super().__init__(rng)
        self.at = ""  # the folder in which the calls so far leave the agent; "" for the root
        self.tree: dict[str, dict[str, str]] = {
            folder: {
                f"{topic}.{pick(rng, ENDINGS)}": self._lines(topic)
                for topic in several(rng, TOPICS, whole(rng, 2, 3))
            }
            for folder in several(rng, FOLDERS, 3)
        }
        self.root = pick(rng, PEOPLE).lower()

    def start(self) -> Mapping[str, Any]:
        contents = {
            folder: {
                "type": "directory",
                "contents": {
                    name: {"type": "file", "content": text} for name, text in files.items()
                },
            }
            for folder, files in self.tree.items()
        }
        return {"root": {self.root: {"type": "directory", "contents": contents}}}

    def _lines(self, topic: str) -> str:
        words = [topic, *several(self.rng, TOPICS, 2)]
        return "\n".join(line.format(pick(self.rng, words)) for line in several(self.rng, LINES, 4))

    def _go(self, folder: str) -> list[Any]:
        """Calls that lead to a folder, from where the calls before have led."""
        if folder == self.at:
            return []
        way = [call("cd", folder="..")] if self.at else []
        self.at = folder
        return [*way, call("cd", folder=folder)]

    def _any(self) -> tuple[str, str]:
        folder = pick(self.rng, [each for each, files in self.tree.items() if files])
        return folder, pick(self.rng, list(self.tree[folder]))

    def make(self) -> Wish | None:
        folder = pick(self.rng, list(self.tree))
        free = [name for topic in TOPICS if (name := f"{topic}.txt") not in self.tree[folder]]
        name = pick(self.rng, free)
        self.tree[folder][name] = ""
        return Wish(
            says=self.words(
                f"Make an empty file {name} in the folder {folder}.",
                f"I need a new file called {name} in {folder}.",
            ),
            vague=f"Make a new empty file in the folder {folder}.",
            detail=f"Call it {name}.",
            calls=(*self._go(folder), call("touch", file_name=name)),
        )

    def write(self) -> Wish | None:
        folder, name = self._any()
        line = pick(self.rng, LINES).format(pick(self.rng, TOPICS))
        self.tree[folder][name] = line
        return Wish(
            says=self.words(
                f"Let {name} in {folder} say nothing but '{line}'.",
                f"Write '{line}' into the file {name} in {folder}, in place of what is there.",
            ),
            vague=f"Write something else into the file {name} in {folder}.",
            detail=f"It shall be '{line}'.",
            calls=(*self._go(folder), call("echo", content=line, file_name=name)),
        )

    def find_line(self) -> Wish | None:
        folder, name = self._any()
        words = self.tree[folder][name].split()
        if not words:
            return None
        word = pick(self.rng, words)
        return Wish(
            says=self.words(
                f"Which lines of {name} in {folder} have the word '{word}' in them?",
                f"Search {name}, in the folder {folder}, for '{word}'.",
            ),
            vague=f"Search {name}, in the folder {folder}, for a word.",
            detail=f"The word is '{word}'.",
            calls=(*self._go(folder), call("grep", file_name=name, pattern=word)),
        )

    def count(self) -> Wish | None:
        folder, name = self._any()
        what, mode = pick(self.rng, (("lines", "l"), ("words", "w"), ("characters", "c")))
        return Wish(
            says=self.words(
                f"How many {what} are in {name} in {folder}?",
                f"Count the {what} of {name}, which is in {folder}.",
            ),
            calls=(*self._go(folder), call("wc", file_name=name, mode=mode)),
        )

    def order(self) -> Wish | None:
        folder, name = self._any()
        return Wish(
            says=self.words(
                f"Show me the lines of {name} in {folder}, sorted.",
                f"Sort the lines of the file {name} in the folder {folder} for me.",
            ),
            calls=(*self._go(folder), call("sort", file_name=name)),
        )

    def remove(self) -> Wish | None:
        folder, name = self._any()
        del self.tree[folder][name]
        return Wish(
            says=self.words(
                f"Delete {name} from {folder}.", f"I no longer need {name} in {folder}: remove it."
            ),
            vague=f"Delete one of the files in {folder}.",
            detail=f"The one that is called {name}.",
            calls=(*self._go(folder), call("rm", file_name=name)),
        )

    def rename(self) -> Wish | None:
        folder, name = self._any()
        new = f"{pick(self.rng, TOPICS)}_{whole(self.rng, 2, 9)}.txt"
        if new in self.tree[folder]:
            return None
        self.tree[folder][new] = self.tree[folder].pop(name)
        return Wish(
            says=self.words(
                f"Rename {name} in {folder} to {new}.",
                f"In {folder}, {name} shall be called {new}.",
            ),
            vague=f"Rename {name} in {folder}.",
            detail=f"To {new}, please.",
            calls=(*self._go(folder), call("mv", source=name, destination=new)),
        )

    def show(self) -> Wish | None:
        folder, name = self._any()
        return Wish(
            says=self.words(
                f"What is in the file {name} in {folder}?", f"Read me {name} in {folder}."
            ),
            calls=(*self._go(folder), call("cat", file_name=name)),
        )

    def new_folder(self) -> Wish | None:
        folder = pick(self.rng, list(self.tree))
        name = f"{pick(self.rng, TOPICS)}_{whole(self.rng, 2020, 2030)}"
        if name in self.tree[folder]:
            return None
        return Wish(
            says=self.words(
                f"Make a folder {name} inside of {folder}.", f"In {folder}, I need a folder {name}."
            ),
            vague=f"Make a new folder inside of {folder}.",
            detail=f"It is to be called {name}.",
            calls=(*self._go(folder), call("mkdir", dir_name=name)),
        )

    def wish(self, kind: str) -> Wish | None:
        if kind != "make" and not any(self.tree.values()):
            return None
        return super().wish(kind)


class Tickets(Desk):
    api = "TicketAPI"
    kinds = ("create", "resolve", "shut", "look", "urgency")

    def __init__(self, rng: Any) -> None:
        super().__init__(rng)
        self.user = pick(rng, PEOPLE).lower()
        first = whole(rng, 100, 800)
        self.tickets = [
            {
                "id": first + k,
                "title": f"The {topic} page is {pick(rng, ('slow', 'empty', 'down'))}",
                "description": f"Seen by {pick(rng, PEOPLE)}.",
                "status": "Open",
                "priority": whole(rng, 1, 5),
                "created_by": self.user,
            }
            for k, topic in enumerate(several(rng, TOPICS, 3))
        ]
        self.counter = first + 3
        self.open = [int(str(each["id"])) for each in self.tickets]

    def start(self) -> Mapping[str, Any]:
        return {
            "ticket_queue": [dict(each) for each in self.tickets],
            "ticket_counter": self.counter,
            "current_user": self.user,
        }

    def create(self) -> Wish | None:
        title = f"No {pick(self.rng, TOPICS)} today"
        about = f"{pick(self.rng, PEOPLE)} waits for an answer."
        priority = whole(self.rng, 1, 5)
        self.open.append(self.counter)
        self.counter += 1
        return Wish(
            says=f"Open a ticket '{title}' with the description '{about}' and priority {priority}.",
            vague=f"Open a ticket with the description '{about}' and priority {priority}.",
            detail=f"Its title is '{title}'.",
            calls=(call("create_ticket", title=title, description=about, priority=priority),),
        )

    def resolve(self) -> Wish | None:
        if not self.open:
            return None
        ticket = self.open.pop(int(len(self.open) * self.rng.random()))
        how = f"{pick(self.rng, PEOPLE)} repaired it."
        return Wish(
            says=self.words(
                f"Ticket {ticket} is resolved: '{how}'",
                f"Resolve ticket {ticket} with the resolution '{how}'",
            ),
            vague=f"Resolve a ticket with the resolution '{how}'",
            detail=f"It is number {ticket}.",
            calls=(call("resolve_ticket", ticket_id=ticket, resolution=how),),
        )

    def shut(self) -> Wish | None:
        if not self.open:
            return None
        ticket = self.open.pop(int(len(self.open) * self.rng.random()))
        return Wish(
            says=self.words(
                f"Close ticket {ticket}.", f"You can close the ticket number {ticket}."
            ),
            vague="Close one of my tickets.",
            detail=f"Number {ticket}.",
            calls=(call("close_ticket", ticket_id=ticket),),
        )

    def look(self) -> Wish | None:
        ticket = int(str(pick(self.rng, self.tickets)["id"]))
        return Wish(
            says=self.words(f"What does ticket {ticket} say?", f"Show me ticket number {ticket}."),
            vague="Show me one of the tickets.",
            detail=f"The one with the number {ticket}.",
            calls=(call("get_ticket", ticket_id=ticket),),
        )

    def urgency(self) -> Wish | None:
        if not self.open:
            return None
        ticket, priority = pick(self.rng, self.open), whole(self.rng, 1, 5)
        return Wish(
            says=self.words(
                f"Give ticket {ticket} the priority {priority}.",
                f"The priority of ticket {ticket} shall be {priority}.",
            ),
            vague=f"Change the priority of ticket {ticket}.",
            detail=f"Make it {priority}.",
            calls=(call("edit_ticket", ticket_id=ticket, updates={"priority": priority}),),
        )


class Messages(Desk):
    api = "MessageAPI"
    kinds = ("send", "search", "take_back", "add", "sent")

    def __init__(self, rng: Any) -> None:
        super().__init__(rng)
        self.users = {name: f"USR{k:03d}" for k, name in enumerate(several(rng, PEOPLE, 5), 1)}
        self.current = pick(rng, list(self.users))
        others = [name for name in self.users if name != self.current]
        self.inbox = [(name, self._text()) for name in several(rng, others, 3)]
        self.seed = whole(rng, 1, 999_999)

    def start(self) -> Mapping[str, Any]:
        return {
            "random_seed": self.seed,
            "user_count": len(self.users),
            "user_map": dict(self.users),
            "inbox": [{self.users[name]: text} for name, text in self.inbox],
            "message_count": len(self.inbox),
            "current_user": self.users[self.current],
        }

    def _text(self) -> str:
        return pick(self.rng, LINES).format(pick(self.rng, TOPICS))

    def _other(self) -> str:
        return pick(self.rng, [name for name in self.users if name != self.current])

    def send(self) -> Wish | None:
        name, text = self._other(), self._text()
        self.inbox.append((name, text))
        return Wish(
            says=self.words(
                f"Send {name} the message '{text}'.",
                f"Tell {name}: '{text}'. Look up the id first.",
            ),
            vague=f"Send {name} a message.",
            detail=f"It says '{text}'.",
            calls=(
                call("get_user_id", user=name),
                call("send_message", receiver_id=self.users[name], message=text),
            ),
        )

    def search(self) -> Wish | None:
        word = pick(self.rng, TOPICS)
        return Wish(
            says=self.words(
                f"Which messages are about the {word}?", f"Search my messages for '{word}'."
            ),
            vague="Search my messages for a word.",
            detail=f"For '{word}'.",
            calls=(call("search_messages", keyword=word),),
        )

    def take_back(self) -> Wish | None:
        if not self.inbox:
            return None
        name, _ = pick(self.rng, self.inbox)
        last = max(k for k, (to, _) in enumerate(self.inbox) if to == name)
        del self.inbox[last]
        return Wish(
            says=self.words(
                f"Delete the last message to {name}, whose id is {self.users[name]}.",
                f"Take back what I last wrote to {self.users[name]}.",
            ),
            vague="Delete the last message that I wrote to somebody.",
            detail=f"To {self.users[name]}.",
            calls=(call("delete_message", receiver_id=self.users[name]),),
        )

    def add(self) -> Wish | None:
        name = pick(self.rng, [each for each in PEOPLE if each not in self.users])
        self.users[name] = f"USR{len(self.users) + 1:03d}"
        return Wish(
            says=self.words(f"Add {name} to my contacts.", f"I have a new contact, {name}."),
            vague="I have a new contact: add them.",
            detail=f"The name is {name}.",
            calls=(call("add_contact", user_name=name),),
        )

    def sent(self) -> Wish | None:
        return Wish(
            says=self.words("What have I sent so far?", "Show me all messages that I sent."),
            calls=(call("view_messages_sent"),),
        )


class Posts(Desk):
    api = "TwitterAPI"
    kinds = ("post", "repeat", "remark", "follow", "leave", "read", "search")

    def __init__(self, rng: Any) -> None:
        super().__init__(rng)
        names = several(rng, PEOPLE, 8)
        self.me, self.others = names[0].lower(), [name.lower() for name in names[1:]]
        self.password = f"{pick(rng, TOPICS)}{whole(rng, 100, 999)}"
        self.inside = rng.random() < 0.6
        self.posts = [(name, self._text()) for name in several(rng, self.others, 3)]
        self.following = self.others[:2]
        self.repeated: list[int] = []

    def start(self) -> Mapping[str, Any]:
        return {
            "username": self.me,
            "password": self.password,
            "authenticated": self.inside,
            "tweets": {
                str(k): {"id": k, "username": name, "content": text, "tags": [], "mentions": []}
                for k, (name, text) in enumerate(self.posts)
            },
            "tweet_counter": len(self.posts),
            "comments": {},
            "retweets": {},
            "following_list": list(self.following),
        }

    def _text(self) -> str:
        return pick(self.rng, LINES).format(pick(self.rng, TOPICS)).capitalize()

    def _enter(self) -> tuple[str, list[Any]]:
        """What is said before, and the call, where the user is not logged in yet."""
        if self.inside:
            return "", []
        self.inside = True
        words = f"My user name is {self.me}, my password {self.password}. "
        return words, [call("authenticate_twitter", username=self.me, password=self.password)]

    def post(self) -> Wish | None:
        words, way = self._enter()
        text, tag = self._text(), f"#{pick(self.rng, TOPICS)}"
        self.posts.append((self.me, text))
        return Wish(
            says=f"{words}Post '{text}' with the tag {tag}.",
            vague=f"{words}Post something with the tag {tag}.",
            detail=f"It shall say '{text}'.",
            calls=(*way, call("post_tweet", content=text, tags=[tag])),
        )

    def repeat(self) -> Wish | None:
        left = [k for k in range(len(self.posts)) if k not in self.repeated]
        if not left:
            return None
        words, way = self._enter()
        which = pick(self.rng, left)
        self.repeated.append(which)
        return Wish(
            says=f"{words}Share the post with the id {which} again.",
            vague=f"{words}Share one of the posts again.",
            detail=f"The one with the id {which}.",
            calls=(*way, call("retweet", tweet_id=which)),
        )

    def remark(self) -> Wish | None:
        words, way = self._enter()
        which, text = whole(self.rng, 0, len(self.posts) - 1), self._text()
        return Wish(
            says=f"{words}Comment on the post with the id {which}: '{text}'",
            vague=f"{words}Comment on a post: '{text}'",
            detail=f"Its id is {which}.",
            calls=(*way, call("comment", tweet_id=which, comment_content=text)),
        )

    def follow(self) -> Wish | None:
        new = [name for name in self.others if name not in self.following]
        if not new:
            return None
        words, way = self._enter()
        name = pick(self.rng, new)
        self.following.append(name)
        return Wish(
            says=f"{words}I want to follow {name}.",
            vague=f"{words}I want to follow somebody new.",
            detail=f"Follow {name}.",
            calls=(*way, call("follow_user", username_to_follow=name)),
        )

    def leave(self) -> Wish | None:
        if not self.following:
            return None
        words, way = self._enter()
        name = self.following.pop(int(len(self.following) * self.rng.random()))
        return Wish(
            says=f"{words}I no longer want to follow {name}.",
            vague=f"{words}There is somebody whom I no longer want to follow.",
            detail=f"It is {name}.",
            calls=(*way, call("unfollow_user", username_to_unfollow=name)),
        )

    def read(self) -> Wish | None:
        name = pick(self.rng, self.others)
        return Wish(
            says=self.words(f"What has {name} posted?", f"Show me the posts of {name}."),
            vague="Show me somebody's posts.",
            detail=f"Those of {name}.",
            calls=(call("get_user_tweets", username=name),),
        )

    def search(self) -> Wish | None:
        word = pick(self.rng, TOPICS)
        return Wish(
            says=self.words(f"Find posts about the {word}.", f"Search the posts for '{word}'."),
            vague="Search the posts for a word.",
            detail=f"The word is '{word}'.",
            calls=(call("search_tweets", keyword=word),),
        )


class Numbers(Desk):
    api = "MathAPI"
    kinds = ("middle", "total", "largest", "times", "less", "share", "root", "rounded")

    def _list(self) -> list[int]:
        return [whole(self.rng, 2, 99) for _ in range(whole(self.rng, 3, 5))]

    def _of_list(self, what: str, function: str) -> Wish:
        numbers = self._list()
        return Wish(
            says=self.words(
                f"What is the {what} of {enumerated(numbers)}?",
                f"Give me the {what} of these numbers: {enumerated(numbers)}.",
            ),
            vague=f"What is the {what} of my numbers?",
            detail=f"They are {enumerated(numbers)}.",
            calls=(call(function, numbers=numbers),),
        )

    def middle(self) -> Wish | None:
        return self._of_list("mean", "mean")

    def total(self) -> Wish | None:
        return self._of_list("sum", "sum_values")

    def largest(self) -> Wish | None:
        return self._of_list("largest", "max_value")

    def times(self) -> Wish | None:
        a, b = whole(self.rng, 12, 99), whole(self.rng, 12, 99)
        return Wish(says=f"What is {a} times {b}?", calls=(call("multiply", a=a, b=b),))

    def less(self) -> Wish | None:
        a, b = whole(self.rng, 500, 999), whole(self.rng, 12, 499)
        return Wish(says=f"What is {a} less {b}?", calls=(call("subtract", a=a, b=b),))

    def share(self) -> Wish | None:
        part, of = whole(self.rng, 2, 50), whole(self.rng, 60, 200)
        return Wish(
            says=f"How many percent of {of} are {part}?",
            vague=f"How many percent are {part}?",
            detail=f"Of {of}.",
            calls=(call("percentage", part=part, whole=of),),
        )

    def root(self) -> Wish | None:
        number, digits = whole(self.rng, 2, 400), whole(self.rng, 4, 12)
        return Wish(
            says=f"What is the square root of {number}, to {digits} digits?",
            vague=f"What is the square root of {number}, precisely?",
            detail=f"To {digits} digits.",
            calls=(call("square_root", number=number, precision=digits),),
        )

    def rounded(self) -> Wish | None:
        number, places = whole(self.rng, 10_000, 99_999) / 1000, whole(self.rng, 1, 2)
        return Wish(
            says=f"Round {number} to {places} decimal place{'s' * (places > 1)}.",
            calls=(call("round_number", number=number, decimal_places=places),),
        )
