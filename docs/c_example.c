/* Energy and forces of a water molecule from an exported model, through TensorFlow's C interface.

   gcc c_example.c -I $TF/include -L $TF -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2 -o c_example
   LD_LIBRARY_PATH=$TF ./c_example served/1 StatefulPartitionedCall_2

   $TF is the folder of TensorFlow's wheel, python -c "import tensorflow; print(tensorflow.__path__[0])". The second argument is
   the operation of the outputs: saved_model_cli show --dir served/1 --tag_set serve --signature_def serving_default
   prints it, and the numbers of the outputs, which are in alphabetical order. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tensorflow/c/c_api.h>

static void check(TF_Status *status) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s\n", TF_Message(status));
  exit(1);
}

static TF_Tensor *tensor(TF_DataType type, const int64_t *shape, int rank, const void *data, size_t bytes) {
  TF_Tensor *made = TF_AllocateTensor(type, shape, rank, bytes);
  memcpy(TF_TensorData(made), data, bytes);
  return made;
}

int main(int count, char **arguments) {
  if (count != 3) return fprintf(stderr, "usage: c_example FOLDER OPERATION\n"), 2;
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  const char *tags[] = {"serve"};
  TF_Session *session =
      TF_LoadSessionFromSavedModel(TF_NewSessionOptions(), NULL, arguments[1], tags, 1, graph, NULL, status);
  check(status);

  const int32_t Z[1][3] = {{8, 1, 1}};
  const float R[1][3][3] = {{{0, 0, 0.119262f}, {0, 0.763239f, -0.477047f}, {0, -0.763239f, -0.477047f}}}; /* Angstrom */
  const int64_t shape[] = {1, 3, 3};
  TF_Output inputs[] = {{TF_GraphOperationByName(graph, "serving_default_Z"), 0},
                        {TF_GraphOperationByName(graph, "serving_default_R"), 0}};
  TF_Operation *operation = TF_GraphOperationByName(graph, arguments[2]);
  if (!operation) return fprintf(stderr, "no operation %s\n", arguments[2]), 2;
  TF_Output outputs[] = {{operation, 0}, {operation, 1}}; /* energy, forces */
  TF_Tensor *values[] = {tensor(TF_INT32, shape, 2, Z, sizeof Z), tensor(TF_FLOAT, shape, 3, R, sizeof R)};
  TF_Tensor *answers[2];
  TF_SessionRun(session, NULL, inputs, values, 2, outputs, answers, 2, NULL, 0, NULL, status);
  check(status);

  printf("energy %.6f eV\n", *(double *)TF_TensorData(answers[0]));
  const float *forces = TF_TensorData(answers[1]);
  for (int atom = 0; atom < 3; atom++)
    printf("force on atom %d: %9.6f %9.6f %9.6f eV/Ang\n", atom, forces[3 * atom], forces[3 * atom + 1], forces[3 * atom + 2]);
  return 0;
}
