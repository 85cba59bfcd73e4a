"""Word lists and made-up names that tools/gen_corpus.py and tools/gen_demo.py share.

Two names in one: a place is called by an adjective and a noun ("Blue Finch"). A fifth of all such pairs is reserved (see
`reserved`): the corpus never has them, the demo has no others, so that nothing the demo shows can be remembered.
"""
import zlib

ADJECTIVES = """Amber Ancient Bold Brass Brave Bright Broken Bronze Busy Calm Clever Copper Cosy Crimson Crooked Curious Dancing
Dusty Early Eager Empty Fallen Fancy Flying Gentle Giant Gilded Glass Golden Grand Grey Happy Hidden Hollow Honest Hungry Iron
Jolly Laughing Lazy Lively Little Lonely Loud Lucky Merry Mighty Misty Modest Noble Old Painted Paper Patient Pink Plain Polite
Proud Purple Quick Quiet Red Restless Royal Rusty Sandy Scarlet Secret Shady Shining Silent Silver Singing Sleepy Small Smiling
Snowy Spotted Stony Striped Sunny Sweet Swift Tall Thirsty Tiny Twin Velvet Wandering Warm White Wild Windy Wise Wooden Young
Blue Green Yellow Black""".split()
NOUNS = """Acorn Anchor Apple Arrow Badger Barrel Basket Beacon Bear Bee Beetle Bell Bench Boat Boot Bottle Bridge Broom Button
Camel Candle Carrot Cart Cat Cherry Clock Cloud Clover Comet Coral Crab Crane Crow Crown Cup Daisy Deer Dolphin Donkey Door
Dove Dragon Drum Duck Eagle Falcon Feather Fern Fiddle Finch Flute Forest Fox Frog Garden Gate Giraffe Goat Goose Grape Hare
Harp Hat Hawk Hedgehog Heron Hill Horse Island Ivy Jug Kettle Key King Kite Ladder Ladle Lamp Lantern Lark Leaf Lemon Lion
Lobster Magpie Maple Meadow Mill Mirror Mole Moon Moose Moth Mountain Mouse Needle Nest Oak Octopus Olive Onion Orchard Otter
Owl Oyster Palace Parrot Peach Peacock Pear Pebble Pepper Pigeon Pillow Piper Plum Pony Poppy Pumpkin Queen Rabbit Raven River
Robin Rose Sail Salmon Shell Ship Shoe Snail Spider Spoon Squirrel Stag Star Stork Stove Sun Swallow Swan Table Teapot Thistle
Tiger Toad Tower Tulip Turtle Wagon Walnut Whale Wheel Willow Wolf Wren""".split()
KINDS = "cafe|pub|bakery|tea room|inn|bistro|diner|grill|noodle bar|soup kitchen|pizzeria|juice bar|tavern|fish bar|canteen".split("|")
AREAS = """harbour|market|old town|station|park|river|mill|castle|church|school|bridge|square|north gate|lake|theatre|museum|
library|canal|lighthouse|town hall|forest|beach|airport|hospital""".replace("\n", "").split("|")
DISH_FIRST = """apple|plum|cherry|onion|garlic|lemon|honey|pepper|potato|carrot|pumpkin|mushroom|walnut|fish|chicken|cheese|bean|
tomato|ginger|butter|nut|herb|egg|rice""".replace("\n", "").split("|")
DISH_LAST = "cake|pie|soup|stew|bread|salad|tart|pancakes|dumplings|noodles|curry|toast|rolls|pudding|waffles|biscuits".split("|")
PRICES = ["low", "medium", "high"]

FIRST = """Ada Adam Agnes Alan Alice Amir Amy Anna Anton Arthur Asha Basil Bella Ben Bruno Carla Carol Cecil Chen Clara Cora Dan
Daisy David Dora Edith Edgar Elena Eli Ella Emil Emma Enid Erik Esme Eva Felix Fiona Flora Frank Freya George Gita Grace Greta
Hana Harry Hazel Hector Helen Henry Hugo Ida Ines Ira Iris Isaac Ivan Jack Jane Jasper Jonas Joan Julia Karl Kate Kim Kurt Lars
Laura Lena Leo Lily Lola Lucy Luis Mabel Maria Mark Marta Max Maya Mia Milo Mina Mona Nadia Nell Nina Noah Nora Olga Oscar Otis
Otto Owen Paul Pearl Peter Petra Priya Ralf Ravi Rita Rosa Ruth Sam Sana Sara Seth Simon Sofia Stan Susan Tara Theo Tilda Tom
Uma Vera Victor Wanda Will Yara Yusuf Zara Zoe""".split()
STARTS = "Al Ar Bel Ber Bran Cal Car Chal Cor Dal Den Dor El Ember Fal Fen Gar Glen Hal Har Hol Kel Kil Lan Lin Mar Mel Mor Nor Or Pel Pen Ral Ros San Sel Stan Tal Thorn Tor Val Wal Wes Win Yar Zel".split()
MIDDLES = ["", "", "", "an", "e", "en", "er", "i", "ing", "o", "or", "u", "a", "is"]
ENDS = "bridge brook burn bury by dale den dor field ford ham hill holt land ley loch low mere mill mond moor mouth nor port ridge sand stead stock stone ton vale view ville wick wood worth".split()


def reserved(name):
    """Whether a place's name is kept out of the corpus, for the demo."""
    return zlib.crc32(name.encode()) % 5 == 0


def held_out(name):
    """Whether a reserved name is kept out of the demo's training rows too."""
    return zlib.crc32(b"held out " + name.encode()) % 6 == 0


def place_name(rng, want_reserved):
    while True:
        name = rng.choice(ADJECTIVES) + " " + rng.choice(NOUNS)
        if reserved(name) == want_reserved:
            return name


def town(rng):
    return rng.choice(STARTS) + rng.choice(MIDDLES) + rng.choice(ENDS)


def surname(rng):
    return rng.choice(STARTS) + rng.choice(MIDDLES) + rng.choice(["son", "er", "man", "ley", "ow", "ard", "ett", "in", "ski", "es"])


def person(rng):
    return rng.choice(FIRST) if rng.random() < 0.6 else rng.choice(FIRST) + " " + surname(rng)


def dish(rng):
    return rng.choice(DISH_FIRST) + " " + rng.choice(DISH_LAST)


def place_record(rng, name):
    """The facts of a place to eat, in the order in which a record shows them."""
    opens = rng.randint(6, 12)
    return {"name": name, "kind": rng.choice(KINDS), "area": rng.choice(AREAS), "dish": dish(rng),
            "price": rng.choice(PRICES), "opens": str(opens), "closes": str(rng.randint(opens + 3, 23)),
            "children": rng.choice(["yes", "no"])}


def line(record):
    return " | ".join("%s: %s" % item for item in record.items())
