/* methods_kit.h - every method for tests that hold all of them beside each other, on models of 2 small layers. */
#ifndef METHODS_KIT_H
#define METHODS_KIT_H

/* Methods, with options where the defaults do not fit. */
static const char *const methods_all[][2] = {
    {"lora", "{'r':2}"}, {"lora", "{'r':3,'use_dora':true,'lora_dropout':0.2}"}, {"lora_fa", "{'r':2}"}, {"vera", "{'r':4}"},
    {"loha", "{'r':2}"}, {"lokr", "{'r':2}"}, {"ia3", "{}"}, {"ln_tuning", "{}"}, {"bitfit", "{}"}, {"head", "{}"}, {"full", "{}"},
    {"houlsby", "{'reduction_factor':4}"}, {"pfeiffer", "{'reduction_factor':4,'adapter_drop':2}"}, {"parallel", "{}"},
    {"houlsby_inv", "{'reduction_factor':4}"}, {"compacter", "{'reduction_factor':2,'phm_dim':2}"},
    {"prompt", "{'num_virtual_tokens':3}"}, {"ptuning", "{'num_virtual_tokens':2,'encoder_hidden_size':6}"},
    {"prefix", "{'num_virtual_tokens':3}"}, {"ptuning_v2", "{'num_virtual_tokens':2}"},
    {"adalora", "{'init_r':3,'target_r':2,'tinit':0,'tfinal':1}"}, {"oft", "{'oft_block_size':4,'r':0}"},
    {"boft", "{'boft_block_size':4}"}, {"trainable_tokens", "{'token_indices':[1,5]}"},
    {"multitask_prompt", "{'num_virtual_tokens':2,'num_tasks':1,'num_ranks':1}"}, {"mam", "{'prefix_length':2,'bottleneck_size':5}"},
};

#endif
