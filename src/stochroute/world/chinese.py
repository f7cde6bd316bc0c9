"""How the story world speaks Chinese: the words for every key, and the sentences around them.

A 了 in parentheses is spoken in a story, where the deed is done, and left out in a dialogue.
"""

from __future__ import annotations

from stochroute.world.grammar import Beat, Grammar, Slot

NAMES = {
    "Mira": "米拉", "Luna": "露娜", "Nina": "妮娜", "Rosa": "罗莎", "Ella": "艾拉", "Ida": "伊达",
    "Otto": "奥托", "Leo": "里奥", "Hugo": "雨果", "Tom": "汤姆", "Max": "麦克", "Finn": "芬恩",
    "Zoe": "佐伊", "Lina": "丽丽", "Anna": "安娜", "Dora": "朵拉", "Vera": "薇薇", "Ruby": "露比",
    "Paul": "保罗", "Emil": "埃米", "Jack": "杰克", "Carl": "卡尔", "Ivan": "伊万", "Sam": "山姆",
}  # fmt: skip

# Measure word | animal.
KINDS = {
    "fox": "只|狐狸", "bear": "头|小熊", "rabbit": "只|兔子", "mouse": "只|老鼠",
    "hedgehog": "只|刺猬", "otter": "只|水獭", "badger": "只|小獾", "squirrel": "只|松鼠",
    "cat": "只|花猫", "pony": "匹|小马", "elephant": "头|大象", "penguin": "只|企鹅",
}  # fmt: skip

PLACES = {
    "valley": "绿色的山谷里", "river": "宽宽的河边", "sea": "寒冷的海边", "village": "小小的村子里",
    "hill": "多风的山坡上", "forest": "茂密的森林里", "lake": "安静的湖边", "island": "一座小岛上",
    "farm": "古老的农场里", "mountain": "雪山脚下", "meadow": "阳光下的草地上", "mill": "旧磨坊后面",
}  # fmt: skip

GOALS = {
    "lighthouse": "去看老灯塔",
    "peak": "爬上最高峰",
    "garden": "去月亮花园",
    "owl": "拜访聪明的猫头鹰",
    "waterfall": "去看蓝色的瀑布",
    "cake": "烤一个蜂蜜蛋糕",
    "boat": "造一条木船",
    "blanket": "缝一条暖和的毯子",
    "picture": "画一幅大画",
    "pumpkin": "种一个大南瓜",
    "bell": "找到银铃铛",
    "key": "找到金钥匙",
    "kite": "找到丢失的风筝",
    "box": "找到音乐盒",
    "map": "找到藏宝图",
    "sing": "在春天的宴会上唱歌",
    "party": "在灯笼晚会上跳舞",
    "joke": "给女王讲笑话",
    "drum": "在游行中打鼓",
    "play": "在村里演戏",
}

OBSTACLES = {
    "bridge": "桥断了",
    "fog": "大雾遮住了小路",
    "goose": "一只凶巴巴的鹅守着路",
    "tree": "一棵倒下的大树挡住了路",
    "tools": "工具全都不见了",
    "storm": "暴风雨毁掉了第一次的努力",
    "skill": "谁也不知道该怎么做",
    "heavy": "这活儿一个人干不动",
    "well": "它掉在一口深井里",
    "dragon": "一条瞌睡的龙坐在它上面",
    "thorns": "它挂在高高的刺丛上",
    "dark": "它藏在黑黑的山洞里",
    "crow": "一只乌鸦总在旁边嘲笑",
    "fright": "那么多双眼睛真吓人",
    "room": "台上没有位置了",
    "costume": "演出的衣服破了",
}

SOLUTIONS = {
    "rope": "在水上拉起(了)一根绳子",
    "planks": "一块板一块板地修好(了)桥",
    "beavers": "有礼貌地请(了)河狸来帮忙",
    "sun": "耐心等到(了)太阳出来",
    "bells": "跟着钟声走出(了)大雾",
    "through": "勇敢地穿过(了)大雾",
    "bread": "送给(了)鹅一块面包",
    "creep": "趁鹅睡觉时溜(了)过去",
    "stare": "勇敢地盯住(了)鹅的眼睛",
    "push": "合力推开(了)大树",
    "climb": "大胆地翻过(了)大树",
    "saw": "一段一段地锯断(了)大树",
    "borrow": "客气地向邻居借(了)工具",
    "sticks": "用木棍和石头做(了)工具",
    "search": "花一整天找回(了)工具",
    "again": "耐心地从头做(了)一遍",
    "side": "肩并肩一直干到(了)天黑",
    "tent": "搭起(了)一个挡风的帐篷",
    "book": "从书里查到(了)办法",
    "teacher": "带着鲜花请教(了)老师傅",
    "practice": "耐心地试(了)一百次",
    "halves": "把活儿分成(了)两半",
    "lift": "合力抬起(了)重东西",
    "wheel": "做(了)一辆带轮子的小车",
    "bucket": "用绳子放下(了)一个水桶",
    "descend": "大胆地爬下(了)深井",
    "frog": "客气地请(了)青蛙潜下去",
    "pillow": "送给(了)龙一个软枕头",
    "feather": "用羽毛挠(了)挠龙的痒痒",
    "walk": "勇敢地走到(了)龙的面前",
    "shoulders": "像塔一样叠(了)起来",
    "stick": "用长棍子伸进(了)刺丛",
    "wind": "耐心等到(了)风吹动刺丛",
    "mirror": "用镜子照亮(了)山洞",
    "step": "大胆地走进(了)山洞",
    "inch": "一寸一寸地找遍(了)山洞",
    "invite": "好心邀请(了)乌鸦一起来",
    "join": "勇敢地面对(了)乌鸦",
    "away": "天天躲开乌鸦练习(了)很久",
    "breath": "深吸一口气面对(了)大家",
    "rehearse": "在家里练习(了)一个星期",
    "stage": "肩并肩走上(了)台",
    "boxes": "用箱子搭起(了)一个新台子",
    "everyone": "用饼干换来(了)一点位置",
    "free": "耐心等到(了)台子空出来",
    "leaves": "用漂亮的树叶盖住(了)破洞",
    "stitch": "一针一针地补好(了)衣服",
    "ends": "从两头同时缝好(了)衣服",
}

ENDINGS = {
    "ships": "在灯塔上看到(了)大船",
    "lamp": "点亮(了)灯塔的灯",
    "view": "在最高峰上看到(了)整片大地",
    "flag": "在最高峰上插(了)一面旗",
    "flowers": "闻到(了)月亮花园的花香",
    "seed": "从月亮花园带回(了)一颗种子",
    "tea": "和猫头鹰一起喝(了)茶",
    "questions": "问(了)猫头鹰一百个问题",
    "swim": "在瀑布下面游(了)泳",
    "bottle": "在瀑布边装满(了)一瓶水",
    "feast": "和大家分享(了)蛋糕",
    "candle": "在蛋糕上点(了)一根蜡烛",
    "sail": "坐着木船出(了)海",
    "name": "给木船画上(了)名字",
    "sleep": "盖着毯子睡(了)一觉",
    "gift": "把毯子送给(了)挨冻的孩子",
    "wall": "把画挂在(了)墙上",
    "neighbours": "请邻居们看(了)画",
    "soup": "用南瓜煮(了)一锅汤",
    "prize": "用南瓜赢得(了)大奖",
    "ring": "整晚摇响(了)铃铛",
    "door": "把铃铛挂在(了)门上",
    "secret": "用钥匙打开(了)一扇秘密的门",
    "string": "用绳子挂上(了)钥匙",
    "clouds": "把风筝放到(了)云上",
    "children": "让每个孩子都放(了)风筝",
    "dance": "跟着音乐盒跳(了)舞",
    "return": "把音乐盒带回(了)家",
    "chest": "按着藏宝图找到(了)一箱金子",
    "bed": "把藏宝图挂在(了)床头",
    "three": "在宴会上唱(了)三首歌",
    "choir": "在宴会上领着大家合唱(了)一曲",
    "midnight": "在晚会上跳到(了)半夜",
    "partner": "和晚会的主人跳(了)一支舞",
    "laugh": "逗得女王笑(了)出来",
    "kiss": "得到(了)女王的一个吻",
    "front": "打着鼓走在(了)最前面",
    "drumming": "打(了)一整天的鼓",
    "king": "在戏里演(了)国王",
    "bow": "演完戏鞠(了)一躬",
}

LESSONS = {
    "doors": "好话能打开很多门",
    "share": "善意总会回来",
    "time": "好事需要时间",
    "steps": "小步也能走得远",
    "idea": "好主意胜过大力气",
    "think": "先想一想能省很多力",
    "fear": "面对害怕它就会变小",
    "heart": "勇敢的心能找到路",
    "two": "两个朋友比一个强",
    "half": "一起干活只要一半力气",
}

STORY = (
    Beat("opening", (
        "从前，有{hero.a}名叫{hero}，住在{place}。",
        "从前，在{place}，住着{hero.a}，名字叫{hero}。",
        "从前，{place}有{hero.a}，大家都叫{he}{hero}。",
        "很久以前，{hero.a}住在{place}，{he}的名字叫{hero}。",
        "{hero}是{hero.a}，住在{place}。",
        "这是{hero}的故事，{he}是{hero.a}，住在{place}。",
    )),
    Beat("wish", (
        "{he}很想{goal}。",
        "{hero}最大的愿望是{goal}。",
        "有一天，{he}决定{goal}。",
        "{he}做梦都想{goal}。",
        "一天早上，{hero}说：“我要{goal}。”",
    )),
    Beat("obstacle", (
        "可是，{obstacle}。",
        "不过有一个难题：{obstacle}。",
        "但是{obstacle}。",
        "这可不容易，因为{obstacle}。",
        "不巧的是，{obstacle}。",
    )),
    Beat("feeling", (
        "{he}坐下来叹了一口气。",
        "{hero}不知道怎么办才好。",
        "{he}差点放弃了。",
        "{hero}心里很难过。",
    ), optional=True),
    Beat("meeting", (
        "这时，{helper.kind}{helper}来了。",
        "正好，{he}的朋友{helper.kind}{helper}路过这里。",
        "{hero}把这件事告诉了{helper.kind}{helper}。",
        "那天，{he}遇见了{helper.a}，名叫{helper}。",
    )),
    Beat("solution", (
        "于是，他们{solution.past}。",
        "{helper}想了一个主意，他们就{solution.past}。",
        "{helper}说：“我们来{solution}吧！”他们就这么做了。",
        "商量之后，{hero}和{helper}{solution.past}。",
    )),
    Beat("ending", (
        "最后，{hero}{ending.past}。",
        "办法真灵，{hero}{ending.past}。",
        "太阳下山以前，{hero}{ending.past}。",
        "终于，{hero}{ending.past}。",
    )),
    Beat("lesson", (
        "{hero}明白了：{lesson}。",
        "{helper}笑着说：“{lesson}。”",
        "{hero}永远记住了，{lesson}。",
        "从那以后，两个朋友都知道{lesson}。",
        "现在，大家都知道{lesson}。",
    )),
)  # fmt: skip

DIALOGUE = (
    Beat("opening", (
        "两个朋友在{place}见面了，一个是{hero.kind}{hero}，一个是{helper.kind}{helper}。",
        "两个朋友坐在{place}聊天，他们是{hero.kind}{hero}和{helper.kind}{helper}。",
        "两个朋友，{hero.kind}{hero}和{helper.kind}{helper}，住在{place}。",
        "{hero.kind}{hero}和{helper.kind}{helper}在{place}说话。",
    )),
    Beat("wish", (
        "{hero}：我想{goal}。",
        "{hero}：早上好，{helper}！我很想{goal}。",
        "{hero}：我最大的愿望是{goal}。",
        "{hero}：{helper}，我做梦都想{goal}。",
    )),
    Beat("question", (
        "{helper}：有什么难题吗？",
        "{helper}：{hero}，那你为什么不去做呢？",
        "{helper}：听起来真好，有什么麻烦吗？",
        "{helper}：那你为什么不高兴？",
    )),
    Beat("obstacle", (
        "{hero}：唉，{obstacle}。",
        "{hero}：这可不容易，因为{obstacle}。",
        "{hero}：可惜{obstacle}。",
        "{hero}：{obstacle}，我不知道怎么办。",
    )),
    Beat("solution", (
        "{helper}：那我们来{solution}吧。",
        "{helper}：我有个主意，我们可以{solution}。",
        "{helper}：别担心，{hero}，我们一起{solution}。",
        "{helper}：走，我们去{solution}！",
    )),
    Beat("ending", (
        "{hero}：成功了！现在我可以{ending}了。",
        "{hero}：谢谢你，{helper}！今天我就要{ending}。",
        "{hero}：我们做到了！我终于能{ending}了。",
        "{hero}：太好了！我马上就去{ending}。",
    )),
    Beat("lesson", (
        "{helper}：你看，{lesson}。",
        "{helper}：别忘了，{lesson}。",
        "{helper}：现在我们都知道，{lesson}。",
        "{helper}：我的朋友{hero}，{lesson}。",
    )),
)  # fmt: skip


def _plain(table: dict[str, str]) -> dict[str, str]:
    return {key: words.replace("(了)", "") for key, words in table.items()}


def _done(table: dict[str, str]) -> dict[str, str]:
    return {key: words.replace("(了)", "了") for key, words in table.items()}


def _slots() -> dict[str, Slot]:
    animals = {kind: words.split("|")[1] for kind, words in KINDS.items()}
    counted = {kind: "一" + words.replace("|", "") for kind, words in KINDS.items()}
    return {
        "hero": Slot("hero", NAMES),
        "hero.kind": Slot("hero_kind", animals),
        "hero.a": Slot("hero_kind", counted),
        "helper": Slot("helper", NAMES),
        "helper.kind": Slot("helper_kind", animals),
        "helper.a": Slot("helper_kind", counted),
        "he": Slot("hero_gender", {"he": "他", "she": "她"}),
        "place": Slot("place", PLACES),
        "goal": Slot("goal", GOALS),
        "obstacle": Slot("obstacle", OBSTACLES),
        "solution": Slot("solution", _plain(SOLUTIONS)),
        "solution.past": Slot("solution", _done(SOLUTIONS)),
        "ending": Slot("ending", _plain(ENDINGS)),
        "ending.past": Slot("ending", _done(ENDINGS)),
        "lesson": Slot("lesson", LESSONS),
    }


GRAMMARS = {
    "story": Grammar(STORY, _slots(), separator=""),
    "dialogue": Grammar(DIALOGUE, _slots(), separator="\n"),
}
