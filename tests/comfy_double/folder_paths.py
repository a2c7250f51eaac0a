"""Stand-in for ComfyUI's folders; a test points `base_path` at a folder of its own."""

import os

base_path = models_dir = ""
folder_names_and_paths = {}


def use(path):
    """Everything below this folder from now on."""
    global base_path, models_dir
    base_path, models_dir = str(path), os.path.join(path, "models")
    folder_names_and_paths.clear()


def add_model_folder_path(folder_name, full_folder_path, is_default=False):
    paths = folder_names_and_paths.setdefault(folder_name, [])
    if full_folder_path not in paths:
        paths.append(full_folder_path)


def get_folder_paths(folder_name):
    return list(folder_names_and_paths[folder_name])


def get_filename_list(folder_name):
    found = []
    for folder in get_folder_paths(folder_name):
        if os.path.isdir(folder):
            found += sorted(os.listdir(folder))
    return found


def get_full_path_or_raise(folder_name, filename):
    name = os.path.relpath(os.path.join("/", filename), "/")
    for folder in get_folder_paths(folder_name):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(f"Model in folder '{folder_name}' with filename '{filename}' not found.")


def get_directory_by_type(type_name):
    path = os.path.join(base_path, type_name)
    os.makedirs(path, exist_ok=True)
    return path


def get_output_directory():
    return get_directory_by_type("output")


def get_temp_directory():
    return get_directory_by_type("temp")


def get_input_directory():
    return get_directory_by_type("input")


def get_save_image_path(filename_prefix, output_dir, image_width=0, image_height=0):
    subfolder, name = os.path.split(os.path.normpath(filename_prefix))
    folder = os.path.join(output_dir, subfolder)
    if os.path.commonpath((output_dir, os.path.abspath(folder))) != output_dir:
        raise Exception("Saving outside the output folder is not allowed.")
    os.makedirs(folder, exist_ok=True)
    taken = [int(f[len(name) + 1 :].split("_")[0]) for f in os.listdir(folder) if f.startswith(name + "_")]
    return folder, name, max(taken, default=0) + 1, subfolder, filename_prefix


def get_annotated_filepath(name, default_dir=None):
    for mark, folder in (("[output]", get_output_directory), ("[input]", get_input_directory)):
        if name.endswith(mark):
            return os.path.abspath(os.path.join(folder(), name[: -len(mark) - 1]))
    return os.path.abspath(os.path.join(default_dir or get_input_directory(), name))
