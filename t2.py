from base import *
print("=== init.set on paramless / default-equal")
run(mk({"base":{},"act":{"network.init.set":{"stage1.0.act1":"zero"}},"add":{"network.init.set":{"stage1.0.add":{"normal":1.0}}},"same":{"network.init.set":{"head.fc":"kaiming_fan_out"}},"bnrec":{"network.init.set":{"stage1.0.bn1":"trunc_normal"}},"bn1":{"network.init.set":{"stage1.0.bn1":{"constant":1.0}}}}),show=False)
print("=== init.set on vit embedding")
vit={"patch":{"block":"patch_embed","width":8,"patch":4},"cls":{"block":"class_token"},"pos":{"block":"position_embedding"},"enc":{"block":"transformer","heads":2,"position":"relative"},"head":{"block":"token_classifier"}}
run(mk({"base":{},"pos0":{"network.init.set":{"pos":"zero"}},"pos1":{"network.init.set":{"pos":{"normal":5.0}}},"cls":{"network.init.set":{"cls":{"normal":1.0}}}},network__graph=vit),show=False)
print("=== rewire: difference empty")
g={"stem":{"block":"conv_bn_act","width":8},"a":{"block":"conv_bn_act","width":8},"b":{"block":"conv_bn_act","width":8,"from":"a"},"mix":{"block":"add","from":["a","b"]},"head":{"block":"classifier"}}
run(mk({"base":{},"rewired":{"network.graph.b.from":"stem"}},network__graph=g))
print("=== rank")
run(mk({"base":{},"rank":{"network.insert.b.rank":-1}},network__insert={"a":{"block":"se","reduction":2,"at":"after stage1"},"b":{"block":"spatial_gate","at":"after stage1"}}))
print("=== drop_path rate .99 batch")
run(mk({"base":{"network.insert.d":None},"d":{}},network__insert={"d":{"block":"drop_path","rate":0.99,"per":"batch","at":"before stage1.*.add:branch"}}))
