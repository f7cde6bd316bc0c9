"""How the story world speaks English: the words for every key, and the sentences around them."""

from __future__ import annotations

from stochroute.world.grammar import Beat, Grammar, Slot
from stochroute.world.plots import GENDERS, KINDS

PLACES = {
    "valley": "in a green valley",
    "river": "by a wide river",
    "sea": "near the cold sea",
    "village": "in a small village",
    "hill": "on a windy hill",
    "forest": "in a dark forest",
    "lake": "beside a quiet lake",
    "island": "on a little island",
    "farm": "on an old farm",
    "mountain": "under a snowy mountain",
    "meadow": "in a sunny meadow",
    "mill": "behind an old mill",
}

GOALS = {
    "lighthouse": "see the old lighthouse",
    "peak": "climb the highest peak",
    "garden": "visit the moon garden",
    "owl": "meet the wise owl",
    "waterfall": "reach the blue waterfall",
    "cake": "bake a honey cake",
    "boat": "build a wooden boat",
    "blanket": "sew a warm blanket",
    "picture": "paint a big picture",
    "pumpkin": "grow a giant pumpkin",
    "bell": "find the silver bell",
    "key": "find the golden key",
    "kite": "find the lost kite",
    "box": "find the music box",
    "map": "find the treasure map",
    "sing": "sing at the spring feast",
    "party": "dance at the lantern party",
    "joke": "tell the queen a joke",
    "drum": "play the drum in the parade",
    "play": "act in the village play",
}

# Present | past.
OBSTACLES = {
    "bridge": "the bridge is broken | the bridge was broken",
    "fog": "thick fog hides the path | thick fog hid the path",
    "goose": "an angry goose guards the road | an angry goose guarded the road",
    "tree": "a fallen tree blocks the way | a fallen tree blocked the way",
    "tools": "all the tools are gone | all the tools were gone",
    "storm": "a storm has ruined the first try | a storm had ruined the first try",
    "skill": "nobody knows how to do it | nobody knew how to do it",
    "heavy": "the work is too heavy for one | the work was too heavy for one",
    "well": "it lies in a deep well | it lay in a deep well",
    "dragon": "a sleepy dragon sits on it | a sleepy dragon sat on it",
    "thorns": "it hangs high in a thorny bush | it hung high in a thorny bush",
    "dark": "it is hidden in a dark cave | it was hidden in a dark cave",
    "crow": "a rude crow laughs at every try | a rude crow laughed at every try",
    "fright": "so many eyes are frightening | so many eyes were frightening",
    "room": "there is no room on the stage | there was no room on the stage",
    "costume": "the costume is torn | the costume was torn",
}

# Plain | past.
SOLUTIONS = {
    "rope": "tie a rope across the water | tied a rope across the water",
    "planks": "mend the bridge plank by plank | mended the bridge plank by plank",
    "beavers": "ask the beavers nicely for help | asked the beavers nicely for help",
    "sun": "wait for the sun to come out | waited for the sun to come out",
    "bells": "follow the sound of the bells | followed the sound of the bells",
    "through": "walk bravely through the fog | walked bravely through the fog",
    "bread": "give the goose some bread | gave the goose some bread",
    "creep": "sneak past while the goose sleeps | sneaked past while the goose slept",
    "stare": "look the goose in the eye | looked the goose in the eye",
    "push": "push the tree aside as a team | pushed the tree aside as a team",
    "climb": "climb over the tree without fear | climbed over the tree without fear",
    "saw": "saw the tree piece by piece | sawed the tree piece by piece",
    "borrow": "ask a neighbour for tools | asked a neighbour for tools",
    "sticks": "make tools from sticks and stones | made tools from sticks and stones",
    "search": "look for the tools all day | looked for the tools all day",
    "again": "start again from the beginning | started again from the beginning",
    "side": "work side by side until dark | worked side by side until dark",
    "tent": "put up a tent against the storm | put up a tent against the storm",
    "book": "look it up in a book | looked it up in a book",
    "teacher": "bring flowers to an old teacher | brought flowers to an old teacher",
    "practice": "try a hundred times | tried a hundred times",
    "halves": "share the work in two halves | shared the work in two halves",
    "lift": "lift everything as a team | lifted everything as a team",
    "wheel": "make a cart with wheels | made a cart with wheels",
    "bucket": "lower a bucket on a rope | lowered a bucket on a rope",
    "descend": "climb down into the well | climbed down into the well",
    "frog": "ask a friendly frog to dive | asked a friendly frog to dive",
    "pillow": "give the dragon a soft pillow | gave the dragon a soft pillow",
    "feather": "tickle the dragon with a feather | tickled the dragon with a feather",
    "walk": "walk right up to the dragon | walked right up to the dragon",
    "shoulders": "stand on each other like a tower | stood on each other like a tower",
    "stick": "reach into the bush with a stick | reached into the bush with a stick",
    "wind": "wait for the wind to shake the bush | waited for the wind to shake the bush",
    "mirror": "light the cave with a mirror | lit the cave with a mirror",
    "step": "step into the cave without fear | stepped into the cave without fear",
    "inch": "search the cave inch by inch | searched the cave inch by inch",
    "invite": "invite the crow to join | invited the crow to join",
    "join": "stand up to the crow | stood up to the crow",
    "away": "practise far from the crow every day | practised far from the crow every day",
    "breath": "face the crowd with a deep breath | faced the crowd with a deep breath",
    "rehearse": "practise at home for a week | practised at home for a week",
    "stage": "go on stage side by side | went on stage side by side",
    "boxes": "make a new stage from boxes | made a new stage from boxes",
    "everyone": "offer cookies for a little room | offered cookies for a little room",
    "free": "wait until the stage is free | waited until the stage was free",
    "leaves": "cover the hole with bright leaves | covered the hole with bright leaves",
    "stitch": "mend the costume stitch by stitch | mended the costume stitch by stitch",
    "ends": "sew from both ends at once | sewed from both ends at once",
}

# Plain | past.
ENDINGS = {
    "ships": "watch the ships from the lighthouse | watched the ships from the lighthouse",
    "lamp": "light the lamp of the lighthouse | lit the lamp of the lighthouse",
    "view": "see the whole land from the peak | saw the whole land from the peak",
    "flag": "plant a flag on the peak | planted a flag on the peak",
    "flowers": "smell the flowers of the moon garden | smelled the flowers of the moon garden",
    "seed": "take home a seed from the moon garden | took home a seed from the moon garden",
    "tea": "drink tea with the owl | drank tea with the owl",
    "questions": "ask the owl a hundred questions | asked the owl a hundred questions",
    "swim": "swim under the waterfall | swam under the waterfall",
    "bottle": "fill a bottle at the waterfall | filled a bottle at the waterfall",
    "feast": "share the cake with everyone | shared the cake with everyone",
    "candle": "put a candle on the cake | put a candle on the cake",
    "sail": "sail away in the boat | sailed away in the boat",
    "name": "paint a name on the boat | painted a name on the boat",
    "sleep": "sleep under the blanket | slept under the blanket",
    "gift": "give the blanket to a cold child | gave the blanket to a cold child",
    "wall": "hang the picture on the wall | hung the picture on the wall",
    "neighbours": "show the picture to the neighbours | showed the picture to the neighbours",
    "soup": "cook soup from the pumpkin | cooked soup from the pumpkin",
    "prize": "win a prize with the pumpkin | won a prize with the pumpkin",
    "ring": "ring the bell all evening | rang the bell all evening",
    "door": "hang the bell on the door | hung the bell on the door",
    "secret": "open a secret door with the key | opened a secret door with the key",
    "string": "wear the key on a string | wore the key on a string",
    "clouds": "fly the kite above the clouds | flew the kite above the clouds",
    "children": "let every child fly the kite | let every child fly the kite",
    "dance": "dance to the music box | danced to the music box",
    "return": "bring the music box back home | brought the music box back home",
    "chest": "follow the map to a chest of gold | followed the map to a chest of gold",
    "bed": "hang the map over the bed | hung the map over the bed",
    "three": "sing three songs at the feast | sang three songs at the feast",
    "choir": "lead the choir at the feast | led the choir at the feast",
    "midnight": "dance at the party until midnight | danced at the party until midnight",
    "partner": "dance with the host of the party | danced with the host of the party",
    "laugh": "make the queen laugh out loud | made the queen laugh out loud",
    "kiss": "get a kiss from the queen | got a kiss from the queen",
    "front": "march with the drum in front | marched with the drum in front",
    "drumming": "beat the drum all day long | beat the drum all day long",
    "king": "be the king in the play | was the king in the play",
    "bow": "bow after the play | bowed after the play",
}

LESSONS = {
    "doors": "a kind word opens many doors",
    "share": "kindness always comes back",
    "time": "good things take time",
    "steps": "small steps also lead far",
    "idea": "a clever idea beats strong arms",
    "think": "thinking first saves much work",
    "fear": "fear shrinks when you face it",
    "heart": "a brave heart finds the way",
    "two": "two friends are stronger than one",
    "half": "shared work is half the work",
}

STORY = (
    Beat("opening", (
        "Once upon a time, {hero.a} named {hero} lived {place}.",
        "Once upon a time, there was {hero.a} named {hero} who lived {place}.",
        "Once upon a time, {place} there lived {hero.a} called {hero}.",
        "Once upon a time there lived {hero.a} {place}, and {he.his} name was {hero}.",
        "Long ago, {hero.a} called {hero} lived {place}.",
        "{hero} was {hero.a} who lived {place}.",
        "This is the story of {hero}, {hero.a} who lived {place}.",
    )),
    Beat("wish", (
        "{he^} wanted to {goal}.",
        "More than anything, {he} wished to {goal}.",
        "{hero} had one dream: to {goal}.",
        "One morning, {hero} decided to {goal}.",
        "{he.his^} greatest wish was to {goal}.",
        "Every night {he} dreamed that {he} could {goal}.",
    )),
    Beat("obstacle", (
        "But {obstacle.past}.",
        "There was a problem: {obstacle.past}.",
        "Sadly, {obstacle.past}.",
        "It was not easy, because {obstacle.past}.",
        "However, {obstacle.past}.",
    )),
    Beat("feeling", (
        "{hero} sat down and sighed.",
        "{hero} did not know what to do.",
        "{he^} almost gave up.",
        "{hero} felt very small.",
        "{he^} thought about it for a long time.",
    ), optional=True),
    Beat("meeting", (
        "Then {helper} the {helper.kind} came along.",
        "Just then, {helper.a} called {helper} walked by.",
        "Luckily, {he.his} friend {helper} the {helper.kind} was near.",
        "{hero} told {he.his} friend {helper} the {helper.kind} about it.",
        "That day {he} met {helper}, {helper.a} with a warm smile.",
    )),
    Beat("solution", (
        "Together they {solution.past}.",
        "{helper} had an idea, and so they {solution.past}.",
        '"Let us {solution}!" said {helper}, and they did.',
        '{helper} said, "We can {solution}." So they did.',
        "After a short talk, {hero} and {helper} {solution.past}.",
    )),
    Beat("ending", (
        "At last, {hero} {ending.past}.",
        "In the end, {hero} {ending.past}.",
        "It worked, and {hero} {ending.past}.",
        "Before sunset, {hero} {ending.past}.",
        "Soon after, {hero} {ending.past}.",
    )),
    Beat("lesson", (
        "{hero} learned that {lesson}.",
        "{helper} smiled and said that {lesson}.",
        "And {hero} never forgot that {lesson}.",
        "From that day on, both friends knew that {lesson}.",
        "Since then, everyone knows that {lesson}.",
    )),
)  # fmt: skip

DIALOGUE = (
    Beat("opening", (
        "Two friends met {place}: {hero} the {hero.kind} and {helper} the {helper.kind}.",
        "Two friends met {place}. They were {hero} the {hero.kind} and {helper} the {helper.kind}.",
        ("Two friends met one morning: {hero} the {hero.kind} and {helper} the {helper.kind}."
        " They lived {place}."),
        "{hero} the {hero.kind} and {helper} the {helper.kind} sat {place}.",
    )),
    Beat("wish", (
        "{hero}: I want to {goal}.",
        "{hero}: Good morning, {helper}! I would like to {goal}.",
        "{hero}: My greatest wish is to {goal}.",
        "{hero}: Dear {helper}, I dream that I could {goal}.",
    )),
    Beat("question", (
        "{helper}: What is the problem?",
        "{helper}: Why do you not do it, {hero}?",
        "{helper}: That sounds lovely. What stands in your way?",
        "{helper}: And why do you look so sad?",
    )),
    Beat("obstacle", (
        "{hero}: Well, {obstacle}.",
        "{hero}: It is not easy, because {obstacle}.",
        "{hero}: Sadly, {obstacle}.",
        "{hero}: {obstacle^}, and I do not know what to do.",
    )),
    Beat("solution", (
        "{helper}: Then let us {solution}.",
        "{helper}: I have an idea. We can {solution}.",
        "{helper}: Do not worry, {hero}. Together we will {solution}.",
        "{helper}: Come, let us {solution}!",
    )),
    Beat("ending", (
        "{hero}: It worked! Now I can {ending}.",
        "{hero}: Thank you, {helper}! Today I will {ending}.",
        "{hero}: We did it! At last I can {ending}.",
        "{hero}: How wonderful! Now nothing stops me and I can {ending}.",
    )),
    Beat("lesson", (
        "{helper}: You see, {lesson}.",
        "{helper}: Never forget that {lesson}.",
        "{helper}: Now we both know that {lesson}.",
        "{helper}: My friend {hero}, {lesson}.",
    )),
)  # fmt: skip


def _column(table: dict[str, str], index: int) -> dict[str, str]:
    return {key: words.split(" | ")[index] for key, words in table.items()}


def _slots() -> dict[str, Slot]:
    names = {name: name for name in GENDERS}
    kinds = {kind: kind for kind in KINDS}
    articles = {kind: f"an {kind}" if kind[0] in "aeiou" else f"a {kind}" for kind in KINDS}
    return {
        "hero": Slot("hero", names),
        "hero.kind": Slot("hero_kind", kinds),
        "hero.a": Slot("hero_kind", articles),
        "helper": Slot("helper", names),
        "helper.kind": Slot("helper_kind", kinds),
        "helper.a": Slot("helper_kind", articles),
        "he": Slot("hero_gender", {"he": "he", "she": "she"}),
        "he.his": Slot("hero_gender", {"he": "his", "she": "her"}),
        "place": Slot("place", PLACES),
        "goal": Slot("goal", GOALS),
        "obstacle": Slot("obstacle", _column(OBSTACLES, 0)),
        "obstacle.past": Slot("obstacle", _column(OBSTACLES, 1)),
        "solution": Slot("solution", _column(SOLUTIONS, 0)),
        "solution.past": Slot("solution", _column(SOLUTIONS, 1)),
        "ending": Slot("ending", _column(ENDINGS, 0)),
        "ending.past": Slot("ending", _column(ENDINGS, 1)),
        "lesson": Slot("lesson", LESSONS),
    }


GRAMMARS = {
    "story": Grammar(STORY, _slots(), separator=" "),
    "dialogue": Grammar(DIALOGUE, _slots(), separator="\n"),
}
